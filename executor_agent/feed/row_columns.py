"""A column of an RDD's rows becomes an Arrow array. Nothing is rounded, parsed or cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

_DECIMAL = (38, 18)  # what Spark makes of a Python Decimal
_SHOWN = 60  # characters of a value in an error


class RowMismatch(TypeError):
    """A row does not fit the rows before it, or no column can hold what is in it."""


def column_of(values: Sequence[Any], fixed: pa.DataType | None, name: str, done: int) -> pa.Array:
    """The values of column ``name``. ``fixed``: the type that the first batch settled; None: this
    is the first. ``done``: rows of the partition before these. Raises RowMismatch."""
    try:
        found = _array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _culprit(values, fixed, name, done, str(error)) from None
    if fixed is None:
        if _is_unknown(found.type):
            raise RowMismatch(
                f"column {name!r} has only nulls or empty lists in the first {len(values)} rows of "
                "this partition, so that its type is not known. Feed a DataFrame, whose columns "
                "have types, or put a row with a value first."
            )
        return found
    fitting = _as_type(found, fixed)
    if fitting is None:
        raise _culprit(values, fixed, name, done, "")
    return fitting


def _array(values: Sequence[Any]) -> pa.Array:
    """With the type that the values themselves suggest: nothing is rounded or parsed."""
    first = next((value for value in values if value is not None), None)
    if hasattr(first, "toArray"):  # DenseVector, SparseVector
        values = [None if value is None else value.toArray() for value in values]
        first = next(value for value in values if value is not None)
    if isinstance(first, np.ndarray) and first.dtype.kind in "biuf":
        return _from_arrays(values, first)
    if isinstance(first, np.ndarray):
        return pa.array([None if value is None else value.tolist() for value in values])
    if isinstance(first, list) and set(map(type, values)) == {list}:
        # Twice as fast as Arrow's own walk through lists of lists.
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
        inner = _array(list(chain.from_iterable(values)))
        if offsets[-1] < 1 << 31:
            return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner)
    found = pa.array(values)
    if pa.types.is_decimal(found.type):  # its digits would be those of the longest value
        return found.cast(pa.decimal128(*_DECIMAL))
    return found


def _from_arrays(values: Sequence[Any], first: np.ndarray) -> pa.Array:
    """One stack for the whole column, whose memory becomes the column."""
    missing = [value is None for value in values]
    if any(missing):
        blank = np.zeros(first.shape, first.dtype)
        values = [blank if value is None else value for value in values]
    kinds = {getattr(each, "dtype", type(each)) for each in values}
    if len(kinds) > 1 or set(map(type, values)) != {np.ndarray}:
        raise ValueError(f"values of different types, {listed(sorted(map(str, kinds)))}")
    mask = pa.array(missing) if any(missing) else None
    if len({each.shape for each in values}) == 1:
        own = np.array(missing) if any(missing) and not first.ndim else None
        numbers = pa.array(_native(np.stack(values)).reshape(-1), mask=own)
        for level, width in enumerate(reversed(first.shape)):
            outermost = level == first.ndim - 1
            numbers = pa.FixedSizeListArray.from_arrays(
                numbers, int(width), mask=mask if outermost else None
            )
        return numbers
    if first.ndim != 1 or {each.ndim for each in values} != {1}:
        raise ValueError("arrays of more than one dimension, with different shapes")
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(each) for each in values], out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(_native(np.concatenate(values))), mask=mask
    )


def _native(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _is_unknown(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_unknown(kind.value_type)
    return bool(pa.types.is_null(kind))


def _as_type(found: pa.Array, fixed: pa.DataType) -> pa.Array | None:
    """None: it would have to be rounded, parsed or cut."""
    if found.type == fixed:
        return found
    if not _widens(found.type, fixed):
        return None
    try:
        return found.cast(fixed)
    except pa.ArrowInvalid:  # a whole number too large for a float
        return None


def _widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    kinds = pa.types
    if narrow == wide or kinds.is_null(narrow):
        return True
    if kinds.is_list(wide) and (kinds.is_list(narrow) or kinds.is_fixed_size_list(narrow)):
        return _widens(narrow.value_type, wide.value_type)
    if kinds.is_fixed_size_list(wide) and kinds.is_fixed_size_list(narrow):
        same = narrow.list_size == wide.list_size
        return same and _widens(narrow.value_type, wide.value_type)
    if kinds.is_struct(wide) and kinds.is_struct(narrow):
        theirs = {field.name: field.type for field in narrow}
        ours = {field.name: field.type for field in wide}
        return theirs.keys() == ours.keys() and all(
            _widens(theirs[name], ours[name]) for name in ours
        )
    if kinds.is_floating(wide):
        floating = kinds.is_floating(narrow) and narrow.bit_width <= wide.bit_width
        return bool(floating or kinds.is_integer(narrow))
    same_sign = kinds.is_unsigned_integer(wide) == kinds.is_unsigned_integer(narrow)
    whole = kinds.is_integer(wide) and kinds.is_integer(narrow)
    return bool(whole and same_sign and narrow.bit_width < wide.bit_width)


# --- errors ---------------------------------------------------------------------------------------


def _culprit(
    values: Sequence[Any], fixed: pa.DataType | None, name: str, done: int, text: str
) -> RowMismatch:
    """Names the first value that does not fit the column, or those before it."""
    settled = "the type that the first rows of this partition gave it"
    for number, value in enumerate(values):
        if value is None:
            continue
        where = f"row {done + number} of this partition, column {name!r}"
        try:
            alone = _array([value])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            return RowMismatch(
                f"{where}: no column can hold this {type(value).__name__} ({shown(value)}): "
                f"{error}. Give numbers, text, bytes, lists of them or NumPy arrays of numbers."
            )
        if fixed is None:
            fixed, settled = alone.type, "the type of the first value"
        elif _as_type(alone, fixed) is None:
            hint = ""
            if pa.types.is_fixed_size_list(fixed):
                hint = " Pad arrays to one shape, or give lists (list(array)) where lengths vary."
            return RowMismatch(
                f"{where}: {shown(value)} is {alone.type}, but the column is {fixed}, "
                f"{settled}.{hint}"
            )
    return RowMismatch(f"column {name!r} of rows {done} to {done + len(values) - 1}: {text}")


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "(none)"


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
