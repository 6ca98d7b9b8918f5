"""Rows of an RDD become record batches, in the Spark task, without Spark's own conversion.

A column's type is settled by the first batch of a partition. Later rows may be narrower (whole
numbers in a column of floats, nulls); what would lose something, or would only fit after parsing
or rounding, is an error that names the row, the column and both types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from executor_agent.feed.row_columns import RowMismatch, column_of, listed, shown

__all__ = ["RowMismatch", "to_batches"]

BATCH_BYTES = 1 << 20
"""What a batch is meant to have. One row is never split."""

_MAX_ROWS = 1 << 16


def to_batches(rows: Iterable[Any], target: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Tuples, lists, dicts and Rows have a column for each field; everything else (numbers, text,
    bytes, NumPy arrays, vectors of Spark ML) becomes one column named "value".

    Names: of a dict's keys, a Row's or a named tuple's fields, else "_1", "_2", ... as in Spark.
    An array of numbers becomes a fixed-size list of its shape, or a list when the arrays of the
    first batch differ in length; a list is always a list of any length.
    """
    rows = iter(rows)
    first = next(rows, _NOTHING)
    if first is _NOTHING:
        return
    layout = _layout_of(first)
    sizes = _Sizes(layout, first, target)
    types: list[pa.DataType] | None = None
    done = 0
    for some in sizes.groups(chain((first,), rows)):
        columns = layout.columns(some, done)
        arrays = [
            column_of(values, types[n] if types else None, layout.names[n], done)
            for n, values in enumerate(columns)
        ]
        types = types or [each.type for each in arrays]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(layout.names))
        sizes.measured(batch.nbytes)
        done += len(some)
        yield batch


# --- rows -----------------------------------------------------------------------------------------


class _Nothing:
    """No row at all; None may be one."""


_NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the fields of a partition's rows are read. ``keys``: None when a row is the value."""

    names: tuple[str, ...]
    keys: tuple[Any, ...] | None
    like: tuple[Any, ...]  # types
    fields: tuple[str, ...] | None = None

    def columns(self, rows: Sequence[Any], done: int) -> list[Sequence[Any]]:
        """The values by column. ``done``: rows of the partition before these, for errors."""
        if self.keys is None:
            return [rows]
        width = len(self.keys)
        kinds = set(map(type, rows))
        alike = all(issubclass(kind, self.like) for kind in kinds)
        if not alike or set(map(len, rows)) != {width} or not self._same_fields(rows):
            raise self._misfit(rows, done)
        try:
            return [list(map(itemgetter(key), rows)) for key in self.keys]
        except KeyError:
            raise self._misfit(rows, done) from None

    def _same_fields(self, rows: Sequence[Any]) -> bool:
        """Rows with other names in the same number would go into the wrong columns."""
        if self.fields is None:
            return True
        distinct = {id(fields): fields for fields in map(_named, rows)}  # mostly one object
        return all(fields is None or tuple(fields) == self.fields for fields in distinct.values())

    def _misfit(self, rows: Sequence[Any], done: int) -> RowMismatch:
        number, row = next((n, row) for n, row in enumerate(rows, done) if not self._fits(row))
        what = f"is of type {type(row).__name__} ({shown(row)})"
        if isinstance(row, self.like):
            what = f"has the columns {listed(_layout_of(row).names)}"
        return RowMismatch(
            f"row {number} of this partition {what}; the first row is of type "
            f"{self.like[0].__name__} with the columns {listed(self.names)}. Give every row the "
            "same columns (None where there is no value)."
        )

    def _fits(self, row: Any) -> bool:
        if not isinstance(row, self.like) or len(row) != len(self.names):
            return False
        if dict in self.like:
            return set(row) == set(self.names)
        return self._same_fields((row,))


def _layout_of(row: Any) -> _Layout:
    if isinstance(row, dict | tuple | list) and not row:
        raise RowMismatch(f"a row has no columns: {row!r}")
    if isinstance(row, dict):
        for key in row:
            if not isinstance(key, str):
                raise RowMismatch(
                    f"a row has the key {shown(key)} of type {type(key).__name__}: the keys of a "
                    "dict are the names of columns, so they have to be text"
                )
        return _Layout(tuple(row), tuple(row), (dict,))
    if isinstance(row, tuple | list):
        named = _named(row)
        fields = tuple(named) if named else None
        names = fields or tuple(f"_{number}" for number in range(1, len(row) + 1))
        return _Layout(names, tuple(range(len(row))), (type(row), tuple, list), fields)
    return _Layout(("value",), None, (object,))


def _named(row: Any) -> Sequence[str] | None:
    """The names that a pyspark Row or a named tuple carries."""
    return getattr(row, "__fields__", None) or getattr(row, "_fields", None)


class _Sizes:
    """Groups rows so that a batch has about ``target`` bytes.

    Rows of numbers are counted; where a value's length varies (bytes, text, lists, arrays) the
    lengths are added up row by row, so that a few large rows among small ones stay a few.
    """

    def __init__(self, layout: _Layout, first: Any, target: int) -> None:
        self._target = target
        self._keys = layout.keys
        values = [first] if layout.keys is None else [first[key] for key in layout.keys]
        self._varying = [n for n, value in enumerate(values) if not _is_number(value)]
        self._fixed = max(1, 8 * (len(values) - len(self._varying)))
        self._bytes_per_unit = 8.0  # until the first batch has been measured
        self._units = 0

    def groups(self, rows: Iterator[Any]) -> Iterator[list[Any]]:
        while some := self._next(rows):
            yield some

    def _next(self, rows: Iterator[Any]) -> list[Any]:
        limit = self._target / self._bytes_per_unit
        if not self._varying:
            some = list(islice(rows, max(1, min(_MAX_ROWS, int(limit / self._fixed)))))
            self._units = self._fixed * len(some)
            return some
        some, units, length = [], 0, self._length()
        for row in rows:
            some.append(row)
            units += length(row)
            if units >= limit or len(some) >= _MAX_ROWS:
                break
        self._units = units
        return some

    def _length(self) -> Callable[[Any], int]:
        fixed, keys = self._fixed, self._keys
        if keys is None:
            return lambda row: fixed + _length(row)
        varying = [keys[n] for n in self._varying]

        def length(row: Any) -> int:
            try:
                return fixed + sum([len(row[key]) for key in varying])
            except (TypeError, LookupError):  # a null, or a row of another kind: found later
                return fixed

        return length

    def measured(self, size: int) -> None:
        """What the last group came to."""
        self._bytes_per_unit = max(size / max(self._units, 1), 1 / 64)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex | np.generic)


def _length(value: Any) -> int:
    try:
        return len(value)
    except TypeError:
        return 1
