"""What is asked of each column: its type, its shape in one row, and what fills a missing value.

Needs NumPy alone: `tf.TensorSpec` and `tf.RaggedTensorSpec` are read by the attributes they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordinator.core import errors

Shape = tuple[int | None, ...]
BYTES = np.dtype(object)
"""Of columns of strings and of bytes: each value is a `bytes` object, `tf.string` in TensorFlow."""


class FeedMismatch(errors.FeedMismatch):
    """Columns that are not what was asked for. `problems` says it column by column."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the rows do not fit:" + "".join(f"\n  {each}" for each in self.problems))


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column as it is in one row, that is without the batch's dimension."""

    dtype: np.dtype[Any]
    shape: Shape = ()
    """None: as many as the row has, which makes the column ragged; such dimensions come first."""
    default: Any = None
    """Fills what is missing: nulls, and the ends of lists that are shorter than `shape`. None: what
    is missing is an error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _dtype(self.dtype))
        object.__setattr__(self, "shape", tuple(self.shape))
        fixed = self.shape[self.ragged_rank :]
        if any(size is None or size < 0 for size in fixed):
            raise ValueError(
                f"shape {show_shape(self.shape)}: a dimension of None comes before all others; "
                "declare those before it as None, too"
            )
        if self.default is not None:
            object.__setattr__(self, "default", self._fitting(self.default))

    @property
    def ragged_rank(self) -> int:
        """How many dimensions differ from row to row."""
        return next((i for i, size in enumerate(self.shape) if size is not None), len(self.shape))

    def __str__(self) -> str:
        return f"{type_name(self.dtype)} of shape {show_shape(self.shape)}"

    def _fitting(self, default: Any) -> Any:
        if isinstance(default, str):
            default = default.encode()
        if self.dtype == BYTES:
            if not isinstance(default, bytes):
                raise ValueError(f"default {default!r} is neither bytes nor a string")
            return default
        wanted = self.shape if not self.ragged_rank else ()
        try:
            given = np.asarray(default)
            made = given.astype(self.dtype)
            # NumPy cuts off and wraps around without a word: -1 would be 255 in a column of uint8.
            if self.dtype.kind in "biu" and not (
                given.dtype.kind in "biuf" and np.array_equal(made, given)
            ):
                raise ValueError
            return np.broadcast_to(made, wanted)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"default {default!r} is no {self}") from None


Specs = Mapping[str, ColumnSpec]


def make_specs(spec: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Specs:
    """The columns that `spec` names, structs flattened: {"a": {"b": s}} is {"a.b": s}.

    Args:
        spec: for each column one row of it: a `tf.TensorSpec`, a `tf.RaggedTensorSpec`, a
            `ColumnSpec`, or (dtype, shape) with what NumPy takes for a dtype.
        defaults: for some columns, what fills a missing value.

    Raises:
        FeedMismatch: naming every column whose spec or default cannot be meant.
    """
    if not isinstance(spec, Mapping):
        raise TypeError(f"spec maps the names of columns to their types, it is no {spec!r}")
    made: dict[str, ColumnSpec] = {}
    problems = []
    for name, each in _flattened(spec):
        try:
            made[name] = _column_spec(each)
        except (TypeError, ValueError) as error:
            problems.append(f"column {name!r}: {error}")
    if problems:
        raise FeedMismatch(problems)
    return with_defaults(made, defaults)


def with_defaults(specs: Specs, defaults: Mapping[str, Any] | None) -> Specs:
    """Raises FeedMismatch for a default of no column, or of another type than its column."""
    made = dict(specs)
    problems = []
    for name, default in _flattened(defaults or {}):
        if name not in made:
            names = ", ".join(map(repr, made)) or "none"
            problems.append(f"column {name!r}: has a default and is not taken; taken: {names}")
            continue
        try:
            made[name] = replace(made[name], default=default)
        except ValueError as error:
            problems.append(f"column {name!r}: {error}")
    if problems:
        raise FeedMismatch(problems)
    return made


def size_of(shape: Shape) -> int:
    """Elements in a fixed shape."""
    return math.prod(size or 0 for size in shape)


def show_shape(shape: Shape) -> str:
    """As Python writes a tuple."""
    return str(tuple(shape))


def type_name(dtype: np.dtype[Any]) -> str:
    """As TensorFlow calls it."""
    return "string" if dtype == BYTES else dtype.name


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is a floating point type; bfloat16 is one that NumPy does not know."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, each in tree.items():
        if isinstance(each, Mapping):
            yield from _flattened(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _column_spec(spec: Any) -> ColumnSpec:
    if isinstance(spec, ColumnSpec):
        return spec
    if isinstance(spec, tuple) and len(spec) == 2:
        return ColumnSpec(spec[0], spec[1])
    if not (hasattr(spec, "shape") and hasattr(spec, "dtype")):
        raise TypeError(f"{spec!r} is no tf.TensorSpec, tf.RaggedTensorSpec or (dtype, shape)")
    shape = _row_shape(spec.shape)
    if None in shape and not hasattr(spec, "ragged_rank"):
        raise ValueError(
            f"a tf.TensorSpec of shape {show_shape(shape)}: rows of different lengths are a "
            "tf.RaggedTensorSpec of the same shape (and .to_tensor() pads a batch of them); to pad "
            "all rows to one length, name the length and a default"
        )
    return ColumnSpec(_dtype(spec.dtype), shape)


def _row_shape(shape: Any) -> Shape:
    if getattr(shape, "rank", 0) is None:
        raise ValueError("its shape has no rank; name the dimensions, None where they differ")
    sizes = shape.as_list() if hasattr(shape, "as_list") else shape
    return tuple(None if size is None else int(size) for size in sizes)


def _dtype(dtype: Any) -> np.dtype[Any]:
    """NumPy's, of its own or of TensorFlow's. All kinds of text are bytes."""
    made: np.dtype[Any] = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    if made.kind in "OSU":
        return BYTES
    if made.kind not in "biuf" and made.name != "bfloat16":
        raise ValueError(f"{made} is no type of a fed column")
    return made
