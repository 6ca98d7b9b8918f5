"""Which Arrow types a column may have for what is asked of it. Reads types only, never a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from executor_agent.feed.column_specs import (
    BYTES,
    ColumnSpec,
    FeedMismatch,
    Shape,
    Specs,
    is_float,
    show_shape,
    size_of,
    type_name,
    with_defaults,
)

_VECTOR = ("type", "size", "indices", "values")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a field of a struct: `path` leads to it, an index at each level."""

    name: str
    kind: pa.DataType
    path: tuple[int, ...]


def check(schema: pa.Schema, specs: Specs) -> dict[str, Column]:
    """Where the columns are that `specs` asks for.

    Raises:
        FeedMismatch: naming every column that is missing or of another type, what came, what was
            asked for, and what to do.
    """
    columns = flat_columns(schema)
    problems = []
    for name, spec in specs.items():
        found = columns.get(name, [])
        if len(found) == 1:
            reason = why_not(found[0].kind, spec.dtype, spec.shape, padded=spec.default is not None)
            if reason:
                problems.append(f"column {name!r}: {found[0].kind} came, {spec} is asked: {reason}")
        else:
            problems.append(f"column {name!r}: " + _not_one(name, len(found), columns))
    if problems:
        raise FeedMismatch(problems)
    return {name: columns[name][0] for name in specs}


def infer(schema: pa.Schema, defaults: Mapping[str, Any] | None = None) -> Specs:
    """What a schema says by itself: every column as its own type, lists ragged.

    Raises:
        FeedMismatch: naming every column of which more must be said.
    """
    specs: dict[str, ColumnSpec] = {}
    problems = []
    for name, found in flat_columns(schema).items():
        try:
            if len(found) > 1:
                raise ValueError(f"there are {len(found)} of this name; rename or drop all but one")
            specs[name] = _inferred(found[0].kind)
        except ValueError as error:
            problems.append(f"column {name!r}: {found[0].kind}: {error}")
    if problems:
        raise FeedMismatch(problems)
    return with_defaults(specs, defaults)


def flat_columns(schema: pa.Schema) -> dict[str, list[Column]]:
    """By name, "a.b" for the field b of the struct a. Two columns may have one name."""
    found: dict[str, list[Column]] = {}

    def add(name: str, kind: pa.DataType, path: tuple[int, ...]) -> None:
        kind = plain(kind)
        if kinds.is_struct(kind) and not is_vector(kind):
            for index in range(kind.num_fields):
                field = kind.field(index)
                add(f"{name}.{field.name}", field.type, (*path, index))
        else:
            found.setdefault(name, []).append(Column(name, kind, path))

    for index, field in enumerate(schema):
        add(field.name, field.type, (index,))
    return found


def plain(kind: pa.DataType) -> pa.DataType:
    """What is stored: of an extension type, and of a dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    return kind.value_type if kinds.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Any of Arrow's kinds of lists; a map is none."""
    return bool(
        kinds.is_list(kind)
        or kinds.is_large_list(kind)
        or kinds.is_fixed_size_list(kind)
        or kinds.is_list_view(kind)
        or kinds.is_large_list_view(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Any kind of binary, which may hold a tensor. Text does not."""
    return bool(
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_binary_view(kind)
        or kinds.is_fixed_size_binary(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Any kind of string."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def is_vector(kind: pa.DataType) -> bool:
    """Whether it is Spark ML's vector, as Arrow brings it."""
    return kinds.is_struct(kind) and tuple(field.name for field in kind) == _VECTOR


def is_flat(kind: pa.DataType, dtype: np.dtype[Any], shape: Shape) -> bool:
    """Whether a list of plain values holds a tensor of more dimensions, row by row."""
    value = plain(kind.value_type)
    holds_tensors = is_list(value) or is_vector(value) or (is_bytes(value) and dtype != BYTES)
    return len(shape) > 1 and not holds_tensors


def numpy_type(kind: pa.DataType) -> np.dtype[Any] | None:
    """Of one value; None for what is no plain value. Times are counted since 1970, in UTC."""
    if kinds.is_boolean(kind):
        return np.dtype(np.bool_)
    if kinds.is_integer(kind) or kinds.is_floating(kind):
        number: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return number
    if kinds.is_timestamp(kind) or kinds.is_duration(kind):
        return np.dtype(np.int64)
    if kinds.is_date(kind):
        return np.dtype(np.int32)
    if is_text(kind) or is_bytes(kind):
        return BYTES
    return None


def why_not(
    kind: pa.DataType, dtype: np.dtype[Any], shape: Shape, *, padded: bool = False
) -> str | None:
    """Why values of this type cannot become tensors of that one; None when they can."""
    kind = plain(kind)
    if is_list(kind):
        return _why_not_list(kind, dtype, shape, padded)
    if is_vector(kind):
        return _why_not_vector(dtype, shape)
    if is_bytes(kind) and dtype != BYTES:
        if None in shape:
            return "bytes are a tensor of a fixed shape: name all of its dimensions"
        return None
    if (reason := _why_not_value(kind, dtype)) is not None:
        return reason
    if None in shape or size_of(shape) != 1:
        return f"a row has one value, not the shape {show_shape(shape)}"
    return None


def _why_not_list(
    kind: pa.DataType, dtype: np.dtype[Any], shape: Shape, padded: bool
) -> str | None:
    if not shape:
        return (
            "a row has a list: name its shape in a tf.TensorSpec, or tf.RaggedTensorSpec([None], "
            "...) where lengths differ"
        )
    size, inner = shape[0], shape[1:]
    if size is not None and is_flat(kind, dtype, shape):
        size, inner = size_of(shape), ()
    if kinds.is_fixed_size_list(kind) and size is not None:
        came = kind.list_size
        if came > size or (came < size and not padded):
            return f"a row has {came} values, not {size}"
    return why_not(kind.value_type, dtype, inner, padded=padded)


def _why_not_vector(dtype: np.dtype[Any], shape: Shape) -> str | None:
    if not shape or None in shape:
        return "a vector has a fixed length: name it, as in tf.TensorSpec([784], tf.float32)"
    if not is_float(dtype):
        return "a vector holds floating point numbers"
    return None


def _why_not_value(kind: pa.DataType, dtype: np.dtype[Any]) -> str | None:
    if kinds.is_decimal(kind):
        return None if is_float(dtype) else "a decimal becomes a floating point number, or nothing"
    came = numpy_type(kind)
    if came is None:
        return _refusal(kind)
    if came == dtype or can_become(came, dtype):
        return None
    if dtype == BYTES:
        return "cast it in Spark: .cast('string')"
    if came == BYTES:
        return f"text is no number: cast it in Spark, .cast('{_SPARK.get(dtype.kind, 'double')}')"
    return f"{type_name(came)} would lose what it says: cast it in Spark, or ask for its own type"


_SPARK = {"b": "boolean", "i": "bigint", "u": "bigint", "f": "double"}


def can_become(came: np.dtype[Any], asked: np.dtype[Any]) -> bool:
    """Whether one type of numbers may become another: never a fraction an integer, never anything
    a bool. Integers that do not fit are found when they come."""
    if BYTES in (came, asked):
        return came == asked
    if is_float(came):
        return is_float(asked)
    return came == asked or asked.kind != "b"


def _refusal(kind: pa.DataType) -> str:
    if kinds.is_map(kind):
        return "a map is no tensor: select its values in Spark, as in col('m')['key']"
    if kinds.is_null(kind):
        return "a column of nothing but null has no type: cast it in Spark, or drop it"
    if kinds.is_struct(kind):
        return "structs inside of lists are no tensor: select their fields in Spark, .getField('x')"
    if kinds.is_time(kind):
        return "a time of day is no tensor: cast it in Spark, .cast('bigint')"
    return "this type is no tensor: cast it in Spark, or drop it"


def _inferred(kind: pa.DataType) -> ColumnSpec:
    """Raises ValueError with a hint."""
    kind = plain(kind)
    if is_list(kind):
        inner = _inferred(kind.value_type)
        fixed = kinds.is_fixed_size_list(kind) and not inner.ragged_rank
        return ColumnSpec(inner.dtype, (kind.list_size if fixed else None, *inner.shape))
    if is_vector(kind):
        raise ValueError(
            "the length of a vector is not in its type: name it in spec, as in "
            "tf.TensorSpec([784], tf.float32)"
        )
    if kinds.is_decimal(kind):
        raise ValueError(
            "a decimal has no exact type in TensorFlow: ask for tf.float64 in spec, or cast it in "
            "Spark, .cast('double')"
        )
    dtype = numpy_type(kind)
    if dtype is None:
        raise ValueError(_refusal(kind))
    return ColumnSpec(dtype)


def _not_one(name: str, count: int, columns: Mapping[str, object]) -> str:
    if count:
        return f"there are {count} of this name; rename or drop all but one"
    fields = [each for each in columns if each.startswith(f"{name}.")]
    if fields:
        return f"it is a struct; name its fields: {', '.join(map(repr, fields))}"
    return f"no such column; there are: {', '.join(map(repr, columns)) or 'none'}"
