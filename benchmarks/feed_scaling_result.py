"""What the samples of ``feed_scaling`` mean: tables, ratios, and where the ceiling is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import machine
from benchmarks.feed_shapes import Shape
from benchmarks.figure import Result, Table

SOCKET, TCP = "Unix socket", "TCP with TLS"

FULL = 0.85
"""Of all cores: beyond that nobody gets faster by another worker on the same machine."""


@dataclass(frozen=True, slots=True)
class Case:
    """``workers``: each on an executor of its own, with ``feeders`` slots beside the member's."""

    name: str
    workers: int
    feeders: int
    is_equal: bool = False


ONE = Case("1 worker, 1 feeder", 1, 1)
TWO = Case("2 workers, 1 feeder each", 2, 1)
CASES = (
    ONE,
    Case("1 worker, 2 feeders", 1, 2),
    TWO,
    Case("2 workers in equal steps, 1 feeder each", 2, 1, is_equal=True),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One feeding. ``seconds``: from before the Spark job until the last row had gone through a
    step. ``busy``: cores that worked meanwhile, for anybody, on average. ``left_out``: rows that
    were no full batch for all."""

    case: Case
    shape: str
    way: str
    rows: int
    seconds: float
    busy: float
    left_out: int = 0
    was_quiet: bool = True

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def rate(samples: Sequence[Sample], case: Case, shape: str, way: str) -> float:
    """In the median of the repetitions."""
    return median(each.rate for each in _of(samples, case, shape, way))


def busy(samples: Sequence[Sample], case: Case, shape: str, way: str) -> float:
    """Cores, in the median of the repetitions."""
    return median(each.busy for each in _of(samples, case, shape, way))


def _of(samples: Sequence[Sample], case: Case, shape: str, way: str) -> list[Sample]:
    found = [each for each in samples if (each.case, each.shape, each.way) == (case, shape, way)]
    if not found:
        raise ValueError(f"no sample of {case.name}, ({shape}), {way}")
    return found


def result(samples: Sequence[Sample], shapes: Sequence[Shape], java: str, cores: int = 0) -> Result:
    """Every ratio is of two medians of this run. ``cores``: those of this machine by default."""
    cores = cores or len(os.sched_getaffinity(0))
    unquiet = sum(not each.was_quiet for each in samples)
    spoken = [_spoken(samples, shape, cores) for shape in shapes]
    return Result(
        what=(
            "The same rows, from a cached DataFrame into the steps of one worker on one executor "
            "and of two workers on two, on one machine; through the Unix socket of the worker's "
            "host, and as between hosts: TCP with TLS, here over the loopback interface."
        ),
        tables=(
            _rates(samples, shapes),
            _ratios(samples, shapes),
        ),
        notes=(
            *spoken,
            "Rows: "
            + ", ".join(f"({shape.name}) {_rows(samples, shape):,}" for shape in shapes)
            + "; batches of 256. Each feeder is a Spark task, a JVM thread and a Python process; "
            "each worker has a TensorFlow process.",
            "TCP: the driver tells feeders of the workers as if they were on other hosts. What a "
            "network costs beyond TLS and one copy more is not in it.",
            f"In equal steps at most {max(each.left_out for each in samples)} rows were left out.",
            machine.settling("feeding", unquiet, len(samples)),
        ),
        verdict="no bound was promised; " + "; ".join(_verdict(samples, each) for each in shapes),
        is_sound=True,
        machine={"Java": java},
    )


def _rows(samples: Sequence[Sample], shape: Shape) -> int:
    return next(each.rows for each in samples if each.shape == shape.name)


def _rates(samples: Sequence[Sample], shapes: Sequence[Shape]) -> Table:
    rows = []
    for shape in shapes:
        for case in CASES:
            by_socket, by_tcp = (rate(samples, case, shape.name, way) for way in (SOCKET, TCP))
            rows.append(
                (
                    f"({shape.name}) {shape.what}",
                    case.name,
                    f"{by_socket:,.0f}",
                    f"{busy(samples, case, shape.name, SOCKET):.2f}",
                    f"{by_tcp:,.0f}",
                    f"{busy(samples, case, shape.name, TCP):.2f}",
                    f"{by_tcp / by_socket:.2f}",
                )
            )
    return Table(
        "Rows a second, medians, and how many cores worked meanwhile",
        ("shape", "", SOCKET, "cores", TCP, "cores", "TCP of socket"),
        tuple(rows),
    )


def _ratios(samples: Sequence[Sample], shapes: Sequence[Shape]) -> Table:
    rows = []
    for shape in shapes:
        cells = (
            f"{rate(samples, case, shape.name, way) / rate(samples, ONE, shape.name, way):.2f}"
            for way in (SOCKET, TCP)
            for case in CASES[1:]
        )
        rows.append((f"({shape.name})", *cells))
    return Table(
        f"Times as fast as {ONE.name}",
        ("shape", *(f"{case.name}, {way}" for way in (SOCKET, TCP) for case in CASES[1:])),
        tuple(rows),
    )


def _verdict(samples: Sequence[Sample], shape: Shape) -> str:
    two, one = (rate(samples, case, shape.name, SOCKET) for case in (TWO, ONE))
    tcp = rate(samples, ONE, shape.name, TCP)
    return f"({shape.name}) 2 workers {two / one:.2f} times 1, TCP {tcp / one:.2f} of the socket"


def _spoken(samples: Sequence[Sample], shape: Shape, cores: int) -> str:
    """Where the ceiling is: of what was measured, not of what one would expect."""
    one, two = (busy(samples, case, shape.name, SOCKET) for case in (ONE, TWO))
    gain = rate(samples, TWO, shape.name, SOCKET) / rate(samples, ONE, shape.name, SOCKET)
    share = f"({shape.name}) one worker and its feeder keep {one:.2f} of {cores} cores at work"
    if one >= FULL * cores:
        return f"{share}: the machine is full, and a second worker can only share it ({gain:.2f})."
    if two >= FULL * cores:
        return (
            f"{share}, two {two:.2f}: the second finds {cores - one:.2f} cores free, so that the "
            f"most to be gained is {cores / one:.2f} times; measured: {gain:.2f}."
        )
    return f"{share}, two {two:.2f}: the cores are not what holds two workers up ({gain:.2f})."
