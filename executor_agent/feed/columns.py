"""Arrow record batches as NumPy arrays, as a spec asks for them; without a copy where types allow.

The public door of `column_specs` (what is asked), `column_types` (what fits) and `ragged`. Needs
pyarrow and NumPy, never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from executor_agent.feed.column_specs import (
    BYTES,
    ColumnSpec,
    FeedMismatch,
    Shape,
    Specs,
    make_specs,
    size_of,
)
from executor_agent.feed.column_types import (
    Column,
    check,
    infer,
    is_bytes,
    is_flat,
    is_list,
    is_text,
    is_vector,
    numpy_type,
)
from executor_agent.feed.ragged import Ragged, Values, splits_of

__all__ = [
    "BYTES",
    "ColumnSpec",
    "Converter",
    "FeedMismatch",
    "Ragged",
    "Specs",
    "check",
    "convert",
    "infer",
    "make_specs",
    "no_rows",
    "specs_for",
]

Array = np.ndarray[Any, Any]
Parts = tuple[Array, Array | None]
"""Values, and where they are missing; None: nowhere."""

_SPARSE = 0  # the field "type" of Spark ML's vectors; 1 is dense


def specs_for(
    schema: pa.Schema, spec: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None = None
) -> Specs:
    """What `spec` asks for, checked against `schema`; without a spec what the schema says.

    Raises:
        FeedMismatch: naming every column that does not fit.
    """
    if spec is None:
        return infer(schema, defaults)
    specs = make_specs(spec, defaults)
    check(schema, specs)
    return specs


def convert(batch: pa.RecordBatch, specs: Specs) -> dict[str, Values]:
    """The columns of one batch. Arrays may be views of its memory, and then are read-only.

    Raises:
        FeedMismatch: a column is missing, of another type, has nulls without a default, or a row
            of it has another shape.
    """
    return Converter(specs)(batch)


def no_rows(specs: Specs) -> dict[str, Values]:
    """What `convert` gives for a batch without rows."""
    return {name: _nothing(spec.dtype, spec.shape) for name, spec in specs.items()}


def _nothing(dtype: np.dtype[Any], shape: Shape) -> Values:
    if shape and shape[0] is None:
        return Ragged(_nothing(dtype, shape[1:]), np.zeros(1, np.int64))
    return np.zeros((0, *(size or 0 for size in shape)), dtype)


class Converter:
    """Converts batches one after the other; looks at their schema only when it changes."""

    def __init__(self, specs: Specs) -> None:
        self.specs = specs
        self._schema: pa.Schema | None = None
        self._columns: Mapping[str, Column] = {}

    def __call__(self, batch: pa.RecordBatch) -> dict[str, Values]:
        """As `convert`."""
        if self._schema is None or not batch.schema.equals(self._schema):
            self._columns = check(batch.schema, self.specs)
            self._schema = batch.schema
        return {
            name: _Conversion(name, spec, batch.num_rows).values(_at(batch, self._columns[name]))
            for name, spec in self.specs.items()
        }


class _Conversion:
    """One column of one batch."""

    def __init__(self, name: str, spec: ColumnSpec, rows: int) -> None:
        self._name = name
        self._spec = spec
        self._rows = rows

    def values(self, array: pa.Array) -> Values:
        return self._ragged(array, self._spec.shape)

    def _ragged(self, array: pa.Array, shape: tuple[int | None, ...]) -> Values:
        array = _plain(array)
        if not shape or shape[0] is not None:
            fixed = tuple(size or 0 for size in shape)
            values, missing = self._dense(array, fixed)
            return values if missing is None else self._filled(values, missing)
        if array.null_count:
            self._allow_nulls(array)  # a missing list is an empty one
        splits = splits_of(_lengths(array))
        return Ragged(self._ragged(array.flatten(), shape[1:]), splits)

    def _filled(self, values: Array, missing: Array) -> Array:
        values = values if values.flags.writeable else values.copy()
        default = self._spec.default
        if isinstance(default, np.ndarray) and default.ndim:
            default = np.broadcast_to(default, values.shape)[missing]
        values[missing] = default
        return values

    def _dense(self, array: pa.Array, shape: tuple[int, ...]) -> Parts:
        """Of the shape (len(array), *shape)."""
        array = _plain(array)
        if is_list(array.type):
            return self._without_nulls(array, shape, self._lists)
        if is_vector(array.type):
            return self._without_nulls(array, shape, self._vectors)
        if is_bytes(array.type) and self._spec.dtype != BYTES:
            return self._without_nulls(array, shape, self._tensors)
        values, missing = self._scalars(array)
        whole = (len(array), *shape)
        return values.reshape(whole), None if missing is None else missing.reshape(whole)

    def _without_nulls(
        self,
        array: pa.Array,
        shape: tuple[int, ...],
        convert: Callable[[pa.Array, tuple[int, ...]], Parts],
    ) -> Parts:
        """Nulls aside: what holds other values has none where it is null, and later ones move."""
        if not array.null_count:
            return convert(array, shape)
        self._allow_nulls(array)
        valid = array.is_valid()
        some, some_missing = convert(array.filter(valid), shape)
        here = valid.to_numpy(zero_copy_only=False)
        values = np.zeros((len(array), *shape), self._spec.dtype)
        missing = np.ones(values.shape, np.bool_)
        values[here] = some
        missing[here] = False if some_missing is None else some_missing
        return values, missing

    def _lists(self, array: pa.Array, shape: tuple[int, ...]) -> Parts:
        flat = is_flat(array.type, self._spec.dtype, shape)
        width, inner = (size_of(shape), ()) if flat else (shape[0], shape[1:])
        values, missing = self._dense(array.flatten(), inner)
        lengths = _lengths(array)
        if not (lengths == width).all():
            values, missing = self._padded(values, missing, lengths, width)
        whole = (len(array), *shape)
        return values.reshape(whole), None if missing is None else missing.reshape(whole)

    def _padded(self, values: Array, missing: Array | None, lengths: Array, width: int) -> Parts:
        wrong = int(((lengths != width) if self._spec.default is None else lengths > width).sum())
        if wrong:
            raise self._error(
                f"{wrong:,} of {len(lengths):,} lists do not have {width} values but "
                f"{lengths.min()} to {lengths.max()}",
                "a default pads shorter ones; tf.RaggedTensorSpec takes any length",
            )
        here = np.arange(width) < lengths[:, np.newaxis]
        whole = np.zeros((*here.shape, *values.shape[1:]), values.dtype)
        gone = np.ones(whole.shape, np.bool_)
        whole[here] = values
        gone[here] = False if missing is None else missing
        return whole, gone

    def _vectors(self, array: pa.Array, shape: tuple[int, ...]) -> Parts:
        size = size_of(shape)
        kind, declared, indices, values = (array.field(index) for index in range(4))
        sparse = kind.to_numpy() == _SPARSE
        lengths = _lengths(values)
        sizes = np.where(sparse, pc.fill_null(declared, 0).to_numpy(), lengths)
        if not (sizes == size).all():
            raise self._error(
                f"{int((sizes != size).sum()):,} of {len(sizes):,} vectors do not have {size} "
                f"values but {sizes.min()} to {sizes.max()}",
                "name their length in spec",
            )
        numbers = values.flatten().to_numpy()
        if sparse.any():
            dense = np.zeros((len(array), size), numbers.dtype)
            is_sparse = np.repeat(sparse, lengths)  # of each number: is its vector sparse?
            dense[~sparse] = numbers[~is_sparse].reshape(-1, size)
            rows = np.repeat(np.arange(len(array)), lengths)[is_sparse]
            dense[rows, indices.filter(pa.array(sparse)).flatten().to_numpy()] = numbers[is_sparse]
            numbers = dense
        return self._cast(numbers.reshape(len(array), *shape)), None

    def _tensors(self, array: pa.Array, shape: tuple[int, ...]) -> Parts:
        """Bytes are tensors as they lie in memory."""
        dtype = self._spec.dtype
        width = size_of(shape) * dtype.itemsize
        data, lengths = _bytes_of(array)
        if not (lengths == width).all():
            raise self._error(
                f"{int((lengths != width).sum()):,} of {len(lengths):,} values do not have the "
                f"{width:,} bytes of {self._spec}, but {lengths.min():,} to {lengths.max():,}",
                "name the type and shape that was written",
            )
        whole = (len(array), *shape)
        if dtype == np.bool_:
            return (data != 0).reshape(whole), None
        if data.ctypes.data % dtype.alignment:
            data = data.copy()
        return data.view(dtype).reshape(whole), None

    def _scalars(self, array: pa.Array) -> Parts:
        missing = None
        if array.null_count:
            self._allow_nulls(array)
            missing = array.is_null().to_numpy(zero_copy_only=False)
        kind = array.type
        if kinds.is_decimal(kind):
            array = array.cast(pa.float64())
        elif is_text(kind) or is_bytes(kind):
            array = array.cast(pa.large_binary())
        elif kinds.is_timestamp(kind) or kinds.is_duration(kind):
            micro = pa.timestamp("us") if kinds.is_timestamp(kind) else pa.duration("us")
            array = array.cast(micro, safe=False).view(pa.int64())
        elif kinds.is_date(kind):
            array = array.cast(pa.date32()).view(pa.int32())
        if missing is not None:
            nothing = b"" if numpy_type(array.type) == BYTES else 0
            array = array.fill_null(pa.scalar(nothing).cast(array.type))
        return self._cast(array.to_numpy(zero_copy_only=False)), missing

    def _cast(self, values: Array) -> Array:
        asked = self._spec.dtype
        if values.dtype == asked:
            return values
        if values.dtype.kind in "iu" and asked.kind in "iu" and values.size:
            limits = np.iinfo(asked)
            least, most = int(values.min()), int(values.max())
            if least < limits.min or most > limits.max:
                raise self._error(
                    f"values from {least} to {most} do not fit into {asked.name}",
                    f"ask for {values.dtype.name}",
                )
        return values.astype(asked)

    def _allow_nulls(self, array: pa.Array) -> None:
        """Raises FeedMismatch without a default."""
        if self._spec.default is not None:
            return
        word = "null" if array.null_count == 1 else "nulls"
        inside = "" if len(array) == self._rows else " inside of them"
        raise self._error(
            f"{array.null_count:,} {word} in {self._rows:,} rows{inside}",
            f"drop or fill them in Spark, or name a default: defaults={{{self._name!r}: ...}}",
        )

    def _error(self, what: str, hint: str) -> FeedMismatch:
        return FeedMismatch([f"column {self._name!r}: {what}: {hint}"])


def _at(batch: pa.RecordBatch, column: Column) -> pa.Array:
    first, *path = column.path
    array = batch.column(first)
    for index in path:
        array = _plain(array).flatten()[index]  # with the nulls of the struct itself
    return array


def _plain(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    return array.dictionary_decode() if kinds.is_dictionary(array.type) else array


def _lengths(lists: pa.Array) -> Array:
    """0 where a list is null."""
    lengths = pc.list_value_length(lists)
    if lengths.null_count:
        lengths = lengths.fill_null(0)
    return np.asarray(lengths.to_numpy())


def _bytes_of(array: pa.Array) -> tuple[Array, Array]:
    """All bytes, one value after the other, as a read-only view; and the length of each."""
    count = len(array)
    if kinds.is_binary_view(array.type):
        array = array.cast(pa.large_binary())
    if not count:
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    if kinds.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        start = array.offset * width
        return _view(array.buffers()[1], start, count * width), np.full(count, width)
    offset_type = np.int64 if kinds.is_large_binary(array.type) else np.int32
    _, offset_buffer, buffer = array.buffers()
    step = np.dtype(offset_type).itemsize
    offsets = np.frombuffer(offset_buffer, offset_type, count + 1, array.offset * step)
    start, stop = int(offsets[0]), int(offsets[-1])
    return _view(buffer, start, stop - start), np.diff(offsets)


def _view(buffer: Any, start: int, count: int) -> Array:
    if not count:  # Arrow may have no buffer then
        return np.zeros(0, np.uint8)
    data = np.frombuffer(buffer, np.uint8, count, start)
    data.flags.writeable = False  # others may read what was received, other slices of it too
    return data
