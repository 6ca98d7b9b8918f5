"""What the figure ``soak`` says. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.figure import Result, Table

FLAT = 0.10
"""Share of its memory by which a coordinator may grow in an hour, by the slope, and still be called
flat."""

WARM_UP = 0.25
"""Share of the soak in which memory may still fill: what is remembered of ended runs is bounded,
and has to reach its bound first."""


@dataclass(slots=True)
class Measured:
    """All of one soak. ``memory``: which process it was, the instant in seconds, bytes.
    ``journal``: bytes of its files at the end."""

    seconds: float
    members: int
    is_durable: bool = True
    cycles: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    memory: list[tuple[int, float, int]] = field(default_factory=list)
    journal: int = 0
    trouble: list[str] = field(default_factory=list)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that is nearest to the points; 0 for fewer than two of them."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    if not spread:
        return 0.0
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread


def result(measured: Measured) -> Result:
    """Table and verdict."""
    flat = [
        (at, float(size))
        for start, at, size in measured.memory
        if start == 1 and at > WARM_UP * measured.seconds
    ]
    an_hour = slope(flat) * 3600
    usual = sum(size for _, size in flat) / len(flat) if flat else 0.0
    is_flat = bool(flat) and an_hour <= FLAT * usual
    growth = f"{an_hour / 2**20:+.1f} MiB an hour at {usual / 2**20:.1f} MiB"
    held = "NOT SOUND: " + measured.trouble[0] if measured.trouble else "all that must hold, held"
    return Result(
        what=(
            f"{measured.seconds / 60:g} minutes of faults under {measured.members} members with a "
            f"GPU each, {measured.cycles:,} runs and leases that came and went beside them."
        ),
        tables=(
            Table("Faults", ("what", "how often"), _rows(measured.faults)),
            Table(
                "The coordinator's memory",
                ("process", "from, s", "to, s", "first, MiB", "last, MiB", "most, MiB"),
                _memory(measured),
            ),
        ),
        notes=(
            f"Slope: of the first process, after {WARM_UP:.0%} of the time. Killed processes have "
            "successors with a memory of their own: their rows are in the table.",
            "Checked after every fault: the run goes on, all members are running, each holds the "
            "lease that the book says, no two leases share a token; tokens only grow; every run "
            "that came and went succeeded.",
            f"Journal: {measured.journal / 2**20:.1f} MiB at the end."
            if measured.is_durable
            else "The daemon of this version has no journal: it was not killed.",
            *(f"WENT WRONG: {line}" for line in measured.trouble),
        ),
        verdict=f"{held}; memory {'flat' if is_flat else 'NOT flat'} ({growth})",
        is_sound=not measured.trouble,
    )


def _rows(faults: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, str(count)) for name, count in sorted(faults.items()))


def _memory(measured: Measured) -> tuple[tuple[str, ...], ...]:
    rows = []
    for start in sorted({start for start, _, _ in measured.memory}):
        mine = [(at, size) for each, at, size in measured.memory if each == start]
        sizes = [size / 2**20 for _, size in mine]
        rows.append(
            (
                str(start),
                f"{mine[0][0]:.0f}",
                f"{mine[-1][0]:.0f}",
                f"{sizes[0]:.1f}",
                f"{sizes[-1]:.1f}",
                f"{max(sizes):.1f}",
            )
        )
    return tuple(rows)
