"""What the feed's samples mean: tables, ratios and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import machine
from benchmarks.feed_shapes import Shape
from benchmarks.figure import Result, Table

PIPE_BOUND = 0.85
"""What was promised: at least so much of the bare pipe, on every shape."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One feeding: ``way`` is "tflease", "bare" or "queue"; ``seconds`` from before the Spark job
    until the last row had gone through a step."""

    shape: str
    way: str
    rows: int
    seconds: float
    was_quiet: bool = True


def rate(samples: Sequence[Sample], shape: str, way: str) -> float:
    """Rows a second, in the median of the repetitions."""
    return median(
        each.rows / each.seconds for each in samples if (each.shape, each.way) == (shape, way)
    )


def result(samples: Sequence[Sample], shapes: Sequence[Shape], feeders: int, java: str) -> Result:
    """Every ratio is of two medians of this run."""
    rows, missed = [], []
    for shape in shapes:
        ours, bare, queue = (rate(samples, shape.name, way) for way in ("tflease", "bare", "queue"))
        rows.append(
            (
                f"({shape.name}) {shape.what}",
                f"{ours:,.0f}",
                f"{ours * shape.row_bytes / 1e6:,.0f}",
                f"{queue:,.0f}",
                f"{ours / queue:,.0f} (bound {shape.promised:g})",
                f"{bare:,.0f}",
                f"{ours / bare:.2f} (bound {PIPE_BOUND})",
            )
        )
        if ours / queue < shape.promised:
            missed.append(f"({shape.name}) is {ours / queue:.1f} times TensorFlowOnSpark's way")
        if ours / bare < PIPE_BOUND:
            missed.append(f"({shape.name}) is {ours / bare:.2f} of the bare pipe")
    busy = sum(not each.was_quiet for each in samples)
    return Result(
        what=(
            "From a cached DataFrame on one executor into the steps of one TensorFlow process on "
            f"the same host, batches of 256, {feeders} feeders at once; from before the Spark job "
            "until the last row has gone through a step."
        ),
        tables=(
            Table(
                "Rows a second, medians",
                (
                    "shape",
                    "tflease",
                    "MB/s",
                    "TensorFlowOnSpark's way",
                    "ratio",
                    "bare pipe",
                    "of the pipe",
                ),
                tuple(rows),
            ),
        ),
        notes=(
            "TensorFlowOnSpark's way: its feeder (a `put` a row into a manager's queue, then a "
            "`join` that is looked at once a second) and the `from_generator` of its examples, "
            "both written for this figure, on fewer rows: "
            + ", ".join(f"({each.name}) {each.few:,}" for each in shapes)
            + "; the others get "
            + ", ".join(f"({each.name}) {each.rows:,}" for each in shapes)
            + ".",
            "Bare pipe: `mapInArrow` -> Unix socket -> `rebatch`, without accounts of what was "
            "delivered, without keys, without an end that anybody is sure of.",
            machine.settling("feeding", busy, len(samples)),
        ),
        verdict="all bounds met" if not missed else f"MISSED: {'; '.join(missed)}",
        is_sound=True,
        machine={"Java": java},
    )
