"""What the figure ``soak`` says. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.figure import Result, Table
from benchmarks.soak_churn import FILLING_RUNS, LEASES_EACH

MIB = 2**20

FLAT = MIB
"""Bytes by which a coordinator's memory may grow, from the middle fifth of its cycles to the last
(medians), and still be called flat. Connections that are cut and come back move it up and down by
several MiB, for a while, and in the first quarter of an hour the heap still widens."""

LEAK = 1024
"""Bytes for each cycle that must be found; a soak with too few cycles for that says nothing."""

FILLING_CUTS = 60
"""The heap widens for what connections that come back all at once need at the most; measured, it
still did after thirty."""

_PARTS = 5


@dataclass(slots=True)
class Measured:
    """All of one soak. ``memory``: which process it was, the instant in seconds, bytes; once for
    each cycle. ``filling``: seconds before all that. ``journal``: bytes of its files at the end."""

    seconds: float
    members: int
    filling: float = 0.0
    is_durable: bool = True
    cycles: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    memory: list[tuple[int, float, int]] = field(default_factory=list)
    journal: int = 0
    trouble: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Growth:
    """From the middle of the third part of the cycles to the middle of the last one."""

    first: float
    last: float
    cycles: int

    @property
    def is_flat(self) -> bool | None:
        """None: there is no telling."""
        if self.cycles * LEAK < FLAT:
            return None
        return self.last - self.first <= FLAT

    def __str__(self) -> str:
        grown = self.last - self.first
        each = grown / self.cycles if self.cycles else 0.0
        return (
            f"{grown / MIB:+.2f} MiB at {self.last / MIB:.1f} MiB, "
            f"{each:+,.0f} bytes for each of {self.cycles:,} cycles"
        )


def growth(sizes: Sequence[int]) -> Growth:
    """Of one process, by its size after each cycle."""
    part = len(sizes) // _PARTS
    if not part:
        return Growth(0.0, 0.0, 0)
    middle = _PARTS // 2
    settled = median(sizes[middle * part : (middle + 1) * part])
    return Growth(settled, median(sizes[-part:]), middle * part)


def fifths(sizes: Sequence[int]) -> str:
    """Their medians, in MiB: whether what grows goes on growing."""
    part = max(1, len(sizes) // _PARTS)
    parts = [sizes[first : first + part] for first in range(0, part * _PARTS, part)]
    return ", ".join(f"{median(each) / MIB:.1f}" for each in parts if each)


def result(measured: Measured) -> Result:
    """Table and verdict."""
    first_process = [size for start, _, size in measured.memory if start == 1]
    grown = growth(first_process)
    judged = {True: "flat", False: "NOT flat", None: "NOT JUDGED, too few cycles"}[grown.is_flat]
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
            f"Before all that {FILLING_RUNS:,} runs and {FILLING_RUNS * LEASES_EACH:,} leases came "
            f"and went and all connections were cut {FILLING_CUTS} times, in "
            f"{measured.filling:.0f} s: what is remembered of what is over is at its bound then, "
            "and the heap as wide as reconnecting makes it.",
            "Memory: the median of the last fifth of the first process's cycles against that of "
            f"the middle one. More than {FLAT / MIB:g} MiB is not flat, and a soak is judged only "
            f"when a leak of {LEAK:,} bytes a cycle would be more than that.",
            f"Medians of its fifths, in MiB: {fifths(first_process)}.",
            "Connections that are cut and come back move the memory up and down for a while. "
            "Killed processes have successors with a memory of their own: see the table.",
            "Checked after every fault: the run goes on, all members are running, each holds the "
            "lease that the book says, no two leases share a token; tokens only grow; every run "
            "that came and went succeeded.",
            f"Journal: {measured.journal / MIB:.1f} MiB at the end."
            if measured.is_durable
            else "The daemon of this version has no journal: it was not killed.",
            *(f"WENT WRONG: {line}" for line in measured.trouble),
        ),
        verdict=f"{held}; memory {judged} ({grown})",
        is_sound=not measured.trouble,
    )


def _rows(faults: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, str(count)) for name, count in sorted(faults.items()))


def _memory(measured: Measured) -> tuple[tuple[str, ...], ...]:
    rows = []
    for start in sorted({start for start, _, _ in measured.memory}):
        mine = [(at, size) for each, at, size in measured.memory if each == start]
        sizes = [size / MIB for _, size in mine]
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
