"""`predict`: a SavedModel over a DataFrame, in Spark's own tasks, with no cluster at all."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from coordinator.core.errors import FeatureUnavailable, InvalidRun
from coordinator.spark.feed.output_schema import arrow_bytes, parse
from executor_agent.feed.saved_model import PredictTask

_READING_TIMEOUT = 300.0

_TYPES = {
    "bool": "boolean",
    "int8": "tinyint",
    "uint8": "smallint",
    "int16": "smallint",
    "uint16": "int",
    "int32": "int",
    "uint32": "bigint",
    "int64": "bigint",
    "float16": "float",
    "bfloat16": "float",
    "float32": "float",
    "float64": "double",
    "string": "binary",
}
"""Spark's types by TensorFlow's names. A tensor of strings holds bytes of any kind."""


def predict(
    df: Any,
    saved_model_dir: str,
    *,
    output_schema: Any = None,
    signature: str = "serving_default",
    batch_size: int = 4096,
    inputs: Mapping[str, str] | None = None,
) -> Any:
    """A DataFrame of what the model says of the rows of ``df``, in the order of each partition.

    Lazy, as ``mapInArrow`` is. Each Python worker of Spark's loads the model once, on the CPU, and
    tells on its standard error how many rows a second went through it.

    Args:
        df: a DataFrame.
        saved_model_dir: a directory (or a URI that TensorFlow reads) that every executor reaches.
        output_schema: "id bigint, score float", or a StructType: outputs of the model, and columns
            of ``df`` that are to be there, too. Default: all outputs, as the model says; this needs
            TensorFlow on the driver, and takes some seconds.
        signature: of the model.
        batch_size: rows in one call of the model, at most.
        inputs: column to the name of the model's input, where they differ.

    Raises:
        InvalidRun: arguments that make no sense; there is no such model, when it is looked at here.
        FeatureUnavailable: no ``output_schema``, and no TensorFlow here.
    """
    if not hasattr(df, "mapInArrow"):
        raise InvalidRun(f"predict takes a DataFrame of Spark's, not {type(df).__name__}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidRun(f"batch_size={batch_size!r}: must be a whole number, at least 1")
    names = dict(inputs or {})
    unknown = [column for column in names if column not in df.columns]
    if unknown:
        raise InvalidRun(
            f"inputs names {', '.join(map(repr, unknown))}, and the DataFrame has "
            f"{', '.join(map(repr, df.columns))}: it maps columns to inputs of the model"
        )
    if output_schema is None:
        output_schema = outputs_of(saved_model_dir, signature)
    schema = parse(output_schema)
    task = PredictTask(saved_model_dir, signature, arrow_bytes(schema), batch_size, names)
    return df.mapInArrow(task, schema)


def outputs_of(saved_model_dir: str, signature: str) -> str:
    """The outputs of the model, as a schema in Spark's DDL. Read by a process of its own: the
    driver's would keep TensorFlow, with its memory and its threads. Raises as ``predict``."""
    if importlib.util.find_spec("tensorflow") is None:
        raise FeatureUnavailable(
            "TensorFlow is not installed here, so what the model gives is not known before it runs:"
            ' pass output_schema="..." with the names and types of its outputs'
        )
    command = [sys.executable, "-m", PredictTask.__module__, saved_model_dir, signature]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_READING_TIMEOUT
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        raise InvalidRun(
            f"the outputs of the model in {saved_model_dir} could not be read ({error}): pass "
            'output_schema="..."'
        ) from None
    if "error" in said:
        raise InvalidRun(str(said["error"]))
    return ", ".join(_column(name, *said["outputs"][name]) for name in said["outputs"])


def _column(name: str, kind: str, dimensions: int | None) -> str:
    if kind not in _TYPES or dimensions is None:
        what = kind if kind not in _TYPES else "of an unknown number of dimensions"
        raise InvalidRun(
            f'output {name!r} of the model is {what}: pass output_schema="..." that says what it '
            "is to become"
        )
    spelled = _TYPES[kind]
    for _ in range(dimensions - 1):  # without the batch's
        spelled = f"array<{spelled}>"
    return f"`{name}` {spelled}"
