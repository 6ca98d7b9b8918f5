"""What `startup` has measured, and what it means: its tables, its notes and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import machine
from benchmarks.figure import Result, Table
from benchmarks.spread import in_order, median_and_worst, verdict_on

BOUND = 1.5
"""Seconds. What was promised: so much beyond the two imports by hand, at most, in the median."""

MOMENTS = {
    "embedded": "the coordinator's process is forked",
    "created": "the coordinator is up and has the run",
    "submitted": "Spark has the last member's job",
    "launched": "Spark sends the last member's task to its executor",
    "sentinel": "the task forks the last sentinel",
    "agent": "the sentinel forks the last agent",
    "bootstrap": "and the last member, which begins to import TensorFlow",
    "reserved": "the last agent has reserved its slot",
    "ready": "the last member has imported TensorFlow and says so",
    "entered": "main_fun is entered on the last member",
    "returned": "TFCluster.run() returns",
}
"""In the order in which they come, as far as one waits for the other."""


@dataclass(frozen=True, slots=True)
class Start:
    """One run. ``moments``: seconds since ``run`` was called, by name (`MOMENTS`); of
    those that each member has, the later one's. ``cpu``: of the members' processes until
    `main_fun`; ``worked``: core seconds of the whole machine until ``run`` returned."""

    moments: Mapping[str, float]
    cpu: float
    worked: float
    left: tuple[str, ...]
    was_quiet: bool

    @property
    def entered(self) -> float:
        """What is promised."""
        return self.moments["entered"]


@dataclass(frozen=True, slots=True)
class Imports:
    """Two imports by hand: seconds until both were done, and until both processes were gone."""

    imported: float
    gone: float
    cpu: float
    worked: float
    was_quiet: bool


def result(
    warm: Sequence[Start], cold: Sequence[Start], imports: Sequence[Imports], java: str
) -> Result:
    """The tables and the verdict."""
    beyond = median(_entered(warm)) - median(_gone(imports))
    imported = median(_entered(warm)) - median(each.imported for each in imports)
    left = [line for each in (*warm, *cold) for line in each.left]
    taken: list[Start | Imports] = [*warm, *cold, *imports]
    busy = sum(not each.was_quiet for each in taken)
    return Result(
        what=(
            "From the call of TFCluster.run() to main_fun entered on both of 2 members, with "
            "TensorFlow imported (the default preload), against 2 imports of TensorFlow at once by "
            "the same interpreter, started by hand and both waited for."
        ),
        tables=(
            _compared(warm, cold, imports),
            _explained(warm, imports),
            _steps(warm, cold),
            _all_values(warm, cold, imports),
        ),
        notes=(
            "Warm: a local-cluster of 2 executors with one core each, on each of which a Python "
            "function (mapInArrow) has run before. Runs and imports by hand take turns.",
            "Cold: a Spark session of its own for each, whose executors have registered and have "
            "run nothing: JVMs not warmed up, no Python worker yet. The page cache holds "
            "TensorFlow's files in every case: it was not dropped.",
            "By hand: `python -c 'import tensorflow'`, twice, started together. The difference "
            f"to the moment at which both had imported, but were not gone yet: {imported:+.2f} s.",
            f"The first of the warm runs, in which Spark's Python workers know nothing of tflease "
            f"yet, took {warm[0].entered:.2f} s.",
            "Processes are forked at a tick of the kernel's clock, 10 ms; Spark's times are "
            "Spark's, in milliseconds; the coordinator's are its own; main_fun says itself when it "
            "was entered. All on one machine and one clock.",
            "To compare: TensorFlowOnSpark 2.2.5 took 8.7 s (median of 4) until its map_fun was "
            "entered on both of 2 nodes, without an import of TensorFlow; measured on another day, "
            "on a machine of this kind, not here.",
            machine.settling("measurement", busy, len(taken)),
            "After each run the processes of the machine were searched for what it left: "
            f"{len(left)} found.",
            *(f"LEFT BEHIND: {line}" for line in left),
        ),
        verdict=(
            f"at most {BOUND:g} s beyond the same imports by hand, in the median: "
            f"{verdict_on(beyond, BOUND)} ({beyond:+.2f} s)"
        ),
        is_sound=not left,
        machine={"Java": java},
    )


def _entered(starts: Sequence[Start]) -> list[float]:
    return [each.entered for each in starts]


def _gone(imports: Sequence[Imports]) -> list[float]:
    return [each.gone for each in imports]


def _compared(warm: Sequence[Start], cold: Sequence[Start], imports: Sequence[Imports]) -> Table:
    by_hand = median(_gone(imports))
    rows = []
    for name, values in (
        ("tflease, warm: main_fun entered on both", _entered(warm)),
        ("tflease, cold: main_fun entered on both", _entered(cold)),
        ("by hand: both processes gone", _gone(imports)),
    ):
        difference = median(values) - by_hand
        ratio = f"{median(values) / by_hand:.2f}"
        rows.append(
            (name, *median_and_worst(values, 2), f"{difference:+.2f}", ratio, str(len(values)))
        )
    return Table(
        title="Seconds",
        columns=("", "median", "worst", "beyond by hand, in medians", "ratio", "runs"),
        rows=tuple(rows),
    )


def _explained(warm: Sequence[Start], imports: Sequence[Imports]) -> Table:
    """The same difference by its parts; medians of parts, which need not add up exactly."""

    def between(first: str, second: str) -> float:
        return median(each.moments[second] - each.moments[first] for each in warm)

    begun = median(each.moments["bootstrap"] for each in warm)
    imported = median(each.imported for each in imports)
    ended = median(each.gone - each.imported for each in imports)
    rows = (
        ("until the last process that imports is there", begun, 0.0),
        ("from there until both have imported", between("bootstrap", "ready"), imported),
        (
            "until main_fun is entered; by hand: until both are gone",
            between("ready", "entered"),
            ended,
        ),
        (
            "CPU of the two processes that import",
            median(each.cpu for each in warm),
            median(each.cpu for each in imports),
        ),
        (
            "work of all cores in that time, whoever it was for",
            median(each.worked for each in warm),
            median(each.worked for each in imports),
        ),
    )
    return Table(
        title="What the difference consists of, seconds in medians",
        columns=("", "tflease, warm", "by hand", "difference"),
        rows=tuple(
            (name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours - theirs:+.2f}")
            for name, ours, theirs in rows
        ),
    )


def _steps(warm: Sequence[Start], cold: Sequence[Start]) -> Table:
    rows = []
    for (name, text), before in zip(MOMENTS.items(), ("", *MOMENTS), strict=False):
        cells = [cell for starts in (warm, cold) for cell in _step(starts, before, name)]
        rows.append((text, *cells))
    return Table(
        title="Where the time goes, seconds in medians",
        columns=("", "warm: since run()", "step", "cold: since run()", "step"),
        rows=tuple(rows),
    )


def _step(starts: Sequence[Start], before: str, name: str) -> tuple[str, str]:
    """A moment that was not seen in every run is left out rather than guessed."""
    since = [each.moments.get(name, math.nan) for each in starts]
    last = [each.moments.get(before, math.nan) if before else 0.0 for each in starts]
    step = [now - then for now, then in zip(since, last, strict=True)]
    return _if_known(since, ""), _if_known(step, "+")


def _if_known(values: Sequence[float], sign: str) -> str:
    return "" if any(map(math.isnan, values)) else f"{median(values):{sign}.2f}"


def _all_values(warm: Sequence[Start], cold: Sequence[Start], imports: Sequence[Imports]) -> Table:
    return Table(
        title="Every run, sorted",
        columns=("tflease, warm", "tflease, cold", "by hand: gone", "by hand: imported"),
        rows=(
            (
                in_order(_entered(warm), 2),
                in_order(_entered(cold), 2),
                in_order(_gone(imports), 2),
                in_order([each.imported for each in imports], 2),
            ),
        ),
    )
