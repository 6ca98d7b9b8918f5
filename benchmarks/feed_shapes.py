"""The four kinds of rows that feeding is measured with, as cached DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_FLOATS = "transform(sequence(0, {last}), i -> cast(i + id % 7 as float))"
_BYTES = "cast(repeat('0123456789abcdef', {repeats}) as binary)"


@dataclass(frozen=True, slots=True)
class Shape:
    """``rows``: as many as take Spark some seconds. ``few``: as many as TensorFlowOnSpark's way
    takes some seconds for. ``x``: Spark SQL for the features. ``kind``, ``size``: what a row's
    features are, "float32" or "uint8", and how many. ``promised``: times TensorFlowOnSpark's way.
    """

    name: str
    what: str
    rows: int
    few: int
    x: str
    kind: str
    size: int
    promised: float

    @property
    def row_bytes(self) -> int:
        """Without what Arrow adds; the label is an int64."""
        return self.size * (4 if self.kind == "float32" else 1) + 8


SHAPES = (
    Shape("a", "784 floats and a label", 120_000, 2_000, _FLOATS.format(last=783),
          "float32", 784, 50),
    Shape("b", "784 bytes and a label", 600_000, 4_000, _BYTES.format(repeats=49),
          "uint8", 784, 100),
    Shape("c", "4 floats and a label", 3_000_000, 4_000, _FLOATS.format(last=3),
          "float32", 4, 200),
    Shape("d", "an image of 150,528 bytes and a label", 4_000, 400, _BYTES.format(repeats=9408),
          "uint8", 150_528, 5),
)  # fmt: skip


def cached(spark: Any, shape: Shape, rows: int, partitions: int) -> Any:
    """The DataFrame, computed and in the executors' memory."""
    frame = spark.range(0, rows, 1, partitions).selectExpr(f"{shape.x} as x", "id as label")
    frame = frame.persist()
    frame.count()
    return frame
