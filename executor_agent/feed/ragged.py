"""Rows of different lengths, as TensorFlow and Arrow write them: values, and where rows begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Row i is values[row_splits[i]:row_splits[i + 1]]; `row_splits` are int64 and begin with 0.

    `values` are again `Ragged` where the rows' own rows differ. Use
    `tf.RaggedTensor.from_nested_row_splits(ragged.flat_values, ragged.nested_row_splits)`, or
    `dataset.to_tensors`.
    """

    values: np.ndarray[Any, Any] | Ragged
    row_splits: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    def __getitem__(self, index: int) -> Any:
        """One row: an array, or `Ragged`."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return take(self.values, int(self.row_splits[index]), int(self.row_splits[index + 1]))

    @property
    def flat_values(self) -> np.ndarray[Any, Any]:
        """The innermost values."""
        return self.values.flat_values if isinstance(self.values, Ragged) else self.values

    @property
    def nested_row_splits(self) -> list[np.ndarray[Any, Any]]:
        """Of all levels, the outermost first."""
        inner = self.values.nested_row_splits if isinstance(self.values, Ragged) else []
        return [self.row_splits, *inner]


Values: TypeAlias = "np.ndarray[Any, Any] | Ragged"


def take(values: Values, start: int, stop: int) -> Values:
    """Rows `start` to `stop`, without a copy of what is in them."""
    if isinstance(values, Ragged):
        splits = values.row_splits[start : stop + 1]
        inner = take(values.values, int(splits[0]), int(splits[-1]))
        return Ragged(inner, splits - splits[0])
    return values[start:stop]


def join(pieces: Sequence[Values]) -> Values:
    """All rows of the pieces in one new, writable array each. At least one piece."""
    first = pieces[0]
    if not isinstance(first, Ragged):
        return np.concatenate([np.asarray(piece) for piece in pieces])
    ragged = [piece for piece in pieces if isinstance(piece, Ragged)]
    lengths = np.concatenate([np.diff(piece.row_splits) for piece in ragged])
    return Ragged(join([piece.values for piece in ragged]), splits_of(lengths))


def splits_of(lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where rows of these lengths begin, and where the last one ends."""
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    return splits
