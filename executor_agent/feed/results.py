"""What a model gives for a batch of rows becomes Arrow columns, and those become the columns that
were asked for. Used by inference through the cluster and by ``predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

UNNAMED = "results"
"""The column of results that are no mapping."""


class ResultsMismatch(ValueError):
    """The results do not fit: not one for each row (F8), or not of the type that was asked for."""


def to_batch(results: Any, rows: int) -> pa.RecordBatch:
    """Results of ``rows`` rows: an array (or what NumPy takes for one), a list with one result for
    each row, or a mapping of such by column. Lists of tuples become columns "_1", "_2"..., lists
    of mappings columns of those names.

    Raises ResultsMismatch, with both numbers, unless there is one result for each row.
    """
    columns = {name: _column(name, values) for name, values in _by_column(results, rows).items()}
    for name, column in columns.items():
        if len(column) != rows:
            raise _wrong_count(name, len(column), rows)
    if not columns:
        raise ResultsMismatch(f"no results were given for a batch of {rows:,} rows")
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _wrong_count(name: str, count: int, rows: int) -> ResultsMismatch:
    column = "" if name == UNNAMED else f" in column {name!r}"
    return ResultsMismatch(
        f"{count:,} results{column} for a batch of {rows:,} rows: "
        "there must be one for each row, in the same order"
    )


def _by_column(results: Any, rows: int) -> Mapping[str, Any]:
    if isinstance(results, Mapping):
        return {str(name): values for name, values in results.items()}
    if not isinstance(results, list) or not results:
        return {UNNAMED: results}
    if len(results) != rows:  # told of the rows, before they are taken apart
        raise _wrong_count(UNNAMED, len(results), rows)
    first = results[0]
    if isinstance(first, Mapping | tuple):
        _check_alike(results)
    if isinstance(first, Mapping):
        return {str(name): [each[name] for each in results] for name in first}
    if isinstance(first, tuple):
        names = getattr(first, "_fields", None) or getattr(first, "__fields__", None)
        names = names or [f"_{index + 1}" for index in range(len(first))]
        return {name: [each[index] for each in results] for index, name in enumerate(names)}
    return {UNNAMED: results}


def _check_alike(results: Sequence[Any]) -> None:
    """Raises ResultsMismatch unless all have the columns of the first."""

    def columns(each: Any) -> Any:
        if isinstance(each, Mapping):
            return {str(name) for name in each}
        return len(each) if isinstance(each, tuple) else type(each).__name__

    expected = columns(results[0])
    for number, each in enumerate(results):
        if columns(each) != expected:
            raise ResultsMismatch(
                f"result {number} of the batch is {str(each)[:200]}, and the first one is "
                f"{str(results[0])[:200]}: all must have the same columns"
            )


def _column(name: str, values: Any) -> pa.Array:
    try:
        if isinstance(values, pa.ChunkedArray):
            return values.combine_chunks()
        if isinstance(values, pa.Array):
            return values
        if hasattr(values, "row_splits") and hasattr(values, "values"):
            return _ragged(values)
        if isinstance(values, list | tuple) and not _is_numeric(values):
            return pa.array([_plain(each) for each in values])
        return from_numpy(np.asarray(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ResultsMismatch(
            f"the results in column {name!r} are of no common type: {error}"
        ) from None


def _is_numeric(values: Sequence[Any]) -> bool:
    """NumPy arrays of one shape are cheaper as one array than one by one."""
    first = values[0] if values else None
    return (
        isinstance(first, np.ndarray | np.generic)
        and first.dtype.kind in "iufb"
        and all(getattr(each, "shape", None) == first.shape for each in values)
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "numpy"):  # a tensor
        value = value.numpy()
    return value.tolist() if isinstance(value, np.ndarray) else value


def from_numpy(array: np.ndarray[Any, Any]) -> pa.Array:
    """Further dimensions become lists in lists; without a copy where the memory is contiguous."""
    if array.ndim == 0:
        raise ResultsMismatch("the results are one single value, not one for each row")
    if array.dtype.name == "bfloat16":  # of TensorFlow's; Arrow has none
        array = array.astype(np.float32)
    if array.dtype.kind in "OSU":
        return pa.array(array.tolist())
    flat: pa.Array = pa.array(np.ascontiguousarray(array).reshape(-1))
    for dimension in reversed(array.shape[1:]):
        if dimension == 0:
            return pa.array([[]] * len(array))
        flat = pa.FixedSizeListArray.from_arrays(flat, dimension)
    return flat


def _ragged(values: Any) -> pa.Array:
    """``tf.RaggedTensor``, or whatever has its parts."""
    inner = values.values
    inner = _ragged(inner) if hasattr(inner, "row_splits") else from_numpy(np.asarray(inner))
    return pa.LargeListArray.from_arrays(np.asarray(values.row_splits, np.int64), inner)


def cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of ``schema``: by name, or by position where the results have no names.

    Raises ResultsMismatch, naming the column.
    """
    batch = _named(batch, schema)
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            raise ResultsMismatch(
                f"there is no column {field.name!r} in the results, which have "
                f"{', '.join(batch.schema.names)}: give output_schema the names of the results"
            )
        columns.append(_cast(batch.column(field.name), field))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _named(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    names = batch.schema.names
    without = names == [UNNAMED] or names == [f"_{index + 1}" for index in range(len(names))]
    if not without or set(names) == set(schema.names):
        return batch
    if len(names) != len(schema):
        raise ResultsMismatch(
            f"output_schema has {len(schema)} columns ({', '.join(schema.names)}), the results "
            f"have {len(names)} without names: give each batch a mapping of arrays by column"
        )
    return pa.RecordBatch.from_arrays(batch.columns, names=schema.names)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.null_count and not field.nullable:  # Spark would read whatever lies there
        raise ResultsMismatch(
            f"column {field.name!r} of the results has {column.null_count:,} nulls, and "
            "output_schema says that it has none"
        )
    if column.type == field.type:
        return column
    try:
        is_single = pa.types.is_fixed_size_list(column.type) and column.type.list_size == 1
        if is_single and not pa.types.is_nested(field.type):
            column = column.flatten()  # (n, 1), as the last layer of many models has it
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ResultsMismatch(
            f"column {field.name!r} of the results is {column.type}, which does not fit "
            f"{field.type} of output_schema: {error}"
        ) from None
