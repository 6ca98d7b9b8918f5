"""A SavedModel in a Spark task: each partition's rows through it, with no cluster at all.

A Python worker of Spark's loads a model once and keeps it for its next tasks. GPUs are left alone:
they are leased to the members of runs, and a Spark task has no lease.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT_MODELS = 2
"""Of one Python worker; the one that has been there for longest makes room."""


class ModelUnusable(ValueError):
    """There is no such model, or it does not take these rows; the text says what to change."""


@dataclass(frozen=True, slots=True)
class PredictTask:
    """For ``DataFrame.mapInArrow``.

    ``inputs``: column to the name of the model's input. ``schema``: of the results, an Arrow schema
    as bytes; columns in it that the model does not give are the rows' own.
    """

    directory: str
    signature: str
    schema: bytes = field(repr=False)
    batch_size: int
    inputs: Mapping[str, str]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.ipc.read_schema(pa.py_buffer(self.schema))
        rows, loaded, began_at = 0, 0.0, time.monotonic()
        model: Model | None = None
        for batch in batches:
            if model is None and batch.num_rows:
                model = load(self.directory, self.signature)
                loaded = time.monotonic() - began_at
            for start in range(0, batch.num_rows, self.batch_size):
                assert model is not None
                part = batch.slice(start, self.batch_size)
                yield predict(model, part, self.inputs, schema)
                rows += part.num_rows
        if rows:
            _tell(rows, time.monotonic() - began_at, loaded)


def _tell(rows: int, seconds: float, loaded: float) -> None:
    rate = rows / max(seconds - loaded, 1e-6)
    print(
        f"tflease: predicted {rows:,} rows in {seconds:.2f} s, {rate:,.0f} rows/s after "
        f"{loaded:.2f} s to have the model",
        file=sys.stderr,
    )


# --- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """A signature of a SavedModel. ``inputs``: what it takes, by name, the batch's dimension
    included. ``owner``: keeps the variables alive."""

    call: Any
    inputs: Mapping[str, Any]
    owner: Any


_lock = threading.Lock()
_models: dict[tuple[str, str, int], Model] = {}


def load(directory: str, signature: str) -> Model:
    """The model as it lies there now, loaded once in this process. Raises ModelUnusable."""
    import tensorflow as tf

    path = f"{directory.rstrip('/')}/saved_model.pb"
    try:
        version = int(tf.io.gfile.stat(path).mtime_nsec)
    except tf.errors.OpError as error:
        raise ModelUnusable(_no_model(directory, error)) from None
    key = (directory, signature, version)
    with _lock:
        if key not in _models:
            _hide_gpus(tf)
            owner = tf.saved_model.load(directory)
            call = _signature(owner.signatures, signature, directory)
            while len(_models) >= _KEPT_MODELS:
                del _models[next(iter(_models))]
            _models[key] = Model(call, dict(call.structured_input_signature[1]), owner)
        return _models[key]


def _hide_gpus(tf: Any) -> None:
    with suppress(RuntimeError):  # at work in this process already: whoever began that decided
        tf.config.set_visible_devices([], "GPU")


def _signature(signatures: Any, name: str, directory: str) -> Any:
    if name not in signatures:
        names = ", ".join(map(repr, signatures)) or "none"
        raise ModelUnusable(f"the model in {directory} has no signature {name!r}; it has {names}")
    return signatures[name]


def _no_model(directory: str, error: object) -> str:
    return (
        f"there is no SavedModel in {directory} ({error}): it must be a directory that every "
        "executor reads, with a saved_model.pb in it"
    )


# --- rows -----------------------------------------------------------------------------------------


def predict(
    model: Model, batch: pa.RecordBatch, inputs: Mapping[str, str], schema: pa.Schema
) -> pa.RecordBatch:
    """The results for one batch. Raises ModelUnusable; FeedMismatch and ResultsMismatch name the
    column."""
    import tensorflow as tf

    from executor_agent.feed import results

    columns = match(batch.schema.names, list(model.inputs), inputs)
    tensors = {
        name: tf.constant(_array(batch, column, model.inputs[name]), model.inputs[name].dtype)
        for name, column in columns.items()
    }
    given = {name: tensor.numpy() for name, tensor in model.call(**tensors).items()}
    answer = results.to_batch(given, batch.num_rows)
    missing = [name for name in schema.names if name not in given and name in batch.schema.names]
    for name in missing:
        answer = answer.append_column(name, batch.column(name))
    if len(given) == 1 and len(schema) - len(missing) == 1:
        [only] = [name for name in schema.names if name not in missing]
        names = [only, *missing]  # whatever the model calls it
        answer = answer.rename_columns(names)
    return results.cast(answer, schema)


def match(columns: list[str], names: list[str], inputs: Mapping[str, str]) -> dict[str, str]:
    """The column for each input of the model: the one that ``inputs`` names, or the one of its own
    name; one column for one input needs no names. Raises ModelUnusable."""
    unknown = sorted(set(inputs.values()) - set(names)) + sorted(set(inputs) - set(columns))
    if unknown:
        raise ModelUnusable(
            f"inputs names {', '.join(map(repr, unknown))}: it maps columns "
            f"({', '.join(columns)}) to inputs of the model ({', '.join(names)})"
        )
    found = {name: column for column, name in inputs.items()}
    found = {**{name: name for name in names if name in columns}, **found}
    if not found and len(names) == len(columns) == 1:
        found = {names[0]: columns[0]}
    missing = [name for name in names if name not in found]
    if missing:
        raise ModelUnusable(
            f"the model takes {', '.join(map(repr, missing))}, and no column is called so "
            f"({', '.join(columns)}): say which it is, inputs={{'column': {missing[0]!r}}}"
        )
    return {name: found[name] for name in names}


def _array(batch: pa.RecordBatch, column: str, spec: Any) -> np.ndarray[Any, Any]:
    from executor_agent.feed.columns import ColumnSpec, convert

    shape = tuple(spec.shape[1:]) if spec.shape.rank is not None else None
    dtype = spec.dtype.as_numpy_dtype
    if shape is None or None in shape:
        return _as_it_comes(batch, column, dtype)
    converted: Any = convert(batch.select([column]), {column: ColumnSpec(dtype, shape)})
    return np.asarray(converted[column])


def _as_it_comes(batch: pa.RecordBatch, column: str, dtype: Any) -> np.ndarray[Any, Any]:
    """For inputs of any length, which all rows of a batch must share."""
    try:
        return np.array(batch.column(column).to_pylist(), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ModelUnusable(
            f"column {column!r} makes no tensor: its rows have different lengths, or nulls; pad "
            f"or fill them in Spark ({error})"
        ) from None


# --- what a model gives ---------------------------------------------------------------------------


def describe(directory: str, signature: str) -> dict[str, tuple[str, int | None]]:
    """Each output's type, as TensorFlow calls it, and how many dimensions it has (None: not known),
    read from the file alone. Raises ModelUnusable."""
    import tensorflow as tf
    from tensorflow.python.tools.saved_model_utils import get_meta_graph_def

    try:
        graph = get_meta_graph_def(directory, tf.saved_model.SERVING)
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise ModelUnusable(_no_model(directory, error)) from None
    found = _signature(graph.signature_def, signature, directory)
    return {
        name: (
            tf.as_dtype(info.dtype).name,
            None if info.tensor_shape.unknown_rank else len(info.tensor_shape.dim),
        )
        for name, info in sorted(found.outputs.items())
    }


if __name__ == "__main__":  # for a driver that is to have no TensorFlow in its own process
    try:
        print(json.dumps({"outputs": describe(*sys.argv[1:])}))
    except ModelUnusable as unusable:
        print(json.dumps({"error": str(unusable)}))
