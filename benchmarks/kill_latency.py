"""How long TensorFlow outlives its Spark task, against the fastest end there is.

Killed, in turns, on a real Spark executor: the Spark task's Python worker, as Spark itself does it
when it cancels a task; and, to compare, the same TensorFlow process directly. In both cases the
kernel has to free the same memory, so that the difference is what supervision costs.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from benchmarks import stopwatch
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.member_tree import Tree, running
from benchmarks.stopwatch import Answer, Question
from benchmarks.victim import HELPERS

BOUND_MS = 50.0
"""What was promised: so much more than the direct kill, at most, in the median."""

SIZES = {"small": 0, "large": 512}
"""MiB of tensors that the member holds."""

TASK, DIRECT = "Spark task", "TensorFlow"
"""Who gets the SIGKILL: the Spark task's Python worker, or the TensorFlow process itself."""

_GONE_TIMEOUT = 30.0
_SETTLE = 0.5  # seconds: what the start has stirred up must not be measured
_QUIET_PERCENT = 30.0  # of all cores, by anybody; a killed process needs one to free its memory
_PATIENCE = 4.0  # seconds to wait for that


@dataclass(frozen=True, slots=True)
class Sample:
    """One kill, in milliseconds."""

    size: str
    killed: str
    victim_gone: float
    helpers_gone: float
    process_gone: float
    all_gone: float
    processes: int
    resident_mib: float
    late: int
    left: tuple[str, ...]
    was_quiet: bool


def measure(settings: Settings) -> Result:
    """Every repetition is a run of its own: a run whose member is killed is over."""
    from examples.local_cluster import local_cluster

    samples: list[Sample] = []
    total = settings.repeats * len(SIZES) * 2
    numbers = count(1)
    with (
        tempfile.TemporaryDirectory(prefix="tflease-bench-") as scratch,
        local_cluster(executors=1, cores=2) as spark,
    ):
        for repeat in range(settings.repeats):
            for size in SIZES:
                # In turns, and each first as often as the other: a machine that slows down or
                # speeds up does so for both.
                for killed in (TASK, DIRECT) if repeat % 2 == 0 else (DIRECT, TASK):
                    number = next(numbers)
                    sample = take(spark, Path(scratch, f"{number}.json"), size, killed)
                    samples.append(sample)
                    settings.say(f"{number:3} of {total}: {_spelled(sample)}")
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    return result(samples, java)


def take(spark: Any, facts: Path, size: str, killed: str) -> Sample:
    """One run, one kill."""
    with running(spark, facts, SIZES[size]) as tree:
        was_quiet = settle()
        answer = stopwatch.ask(
            Question(
                victim=tree.task if killed == TASK else tree.tensorflow,
                watched=tree.descendants,
                marker=tree.marker,
                spared=tree.agent,
                timeout=_GONE_TIMEOUT,
            )
        )
    return _sample(size, killed, tree, answer, was_quiet)


def settle() -> bool:
    """Waits until nobody needs the cores, not for ever; whether that came."""
    deadline = time.monotonic() + _PATIENCE
    while psutil.cpu_percent(interval=_SETTLE) > _QUIET_PERCENT:
        if time.monotonic() > deadline:
            return False
    return True


def _sample(size: str, killed: str, tree: Tree, answer: Answer, was_quiet: bool) -> Sample:
    forever = math.inf
    helpers = [time for pid, time in answer.gone.items() if pid != tree.tensorflow.pid]
    return Sample(
        size=size,
        killed=killed,
        victim_gone=1000 * answer.victim_gone,
        helpers_gone=forever if answer.left else 1000 * max(helpers),
        process_gone=1000 * answer.gone.get(tree.tensorflow.pid, forever),
        all_gone=forever if answer.left else 1000 * answer.all_gone,
        processes=len(tree.descendants) + answer.late,
        resident_mib=tree.resident_mib,
        late=answer.late,
        left=answer.left,
        was_quiet=was_quiet,
    )


# --- what it means --------------------------------------------------------------------------------


def result(samples: list[Sample], java: str) -> Result:
    """The tables and the verdict."""
    left = [line for sample in samples for line in sample.left]
    late = sum(sample.late for sample in samples)
    busy = sum(not sample.was_quiet for sample in samples)
    differences = {size: difference(samples, size) for size in SIZES}
    worst = max(differences.values())
    met = "met" if worst <= BOUND_MS else "MISSED"
    each = ", ".join(f"{size} {value:+.1f} ms" for size, value in differences.items())
    return Result(
        what=(
            "From SIGKILL of the Spark task's Python worker to every TensorFlow descendant gone, "
            "grace 0, against SIGKILL of the same TensorFlow process directly."
        ),
        tables=(_times(samples), _differences(samples), _all_values(samples)),
        notes=(
            f"The member: one TensorFlow process that serves, with {HELPERS} helpers below it: a "
            "plain child, one in a session of its own, one orphaned in a session of its own.",
            *(_size_note(samples, size) for size in SIZES),
            "Each kill is a run of its own on a local-cluster executor; the two kinds alternate.",
            "Killed: the Spark task's Python worker, or the TensorFlow process itself. TensorFlow "
            "gone: that one process. All gone: it and its helpers.",
            "The helpers hold no memory to speak of: they show how soon the killing begins. What "
            "TensorFlow takes beyond that is not taken apart here.",
            "Gone: the pidfd, opened before the kill, became readable. Afterwards /proc is "
            f"searched for anything with the member's marker: {late} more found.",
            "Where TensorFlow itself was killed, the sentinel ended the helpers once it saw that; "
            "it is not what is compared.",
            f"Before each kill the cores had to be less than {_QUIET_PERCENT:g} % busy; {busy} of "
            f"{len(samples)} were done although they were not, within {_PATIENCE:g} s.",
            *(f"LEFT BEHIND after {_GONE_TIMEOUT:g} s: {line}" for line in left),
        ),
        verdict=f"at most {BOUND_MS:g} ms more in the median: {met} ({each})",
        is_sound=not left,
        machine={"Java": java},
    )


def difference(samples: list[Sample], size: str) -> float:
    """Milliseconds, in the median: the whole tree by its task, less the process by itself."""
    by_task = [each.all_gone for each in _of(samples, size, TASK)]
    direct = [each.process_gone for each in _of(samples, size, DIRECT)]
    return statistics.median(by_task) - statistics.median(direct)


def _of(samples: list[Sample], size: str, killed: str) -> list[Sample]:
    return [each for each in samples if (each.size, each.killed) == (size, killed)]


def _times(samples: list[Sample]) -> Table:
    rows = []
    for size in SIZES:
        for killed in (TASK, DIRECT):
            chosen = _of(samples, size, killed)
            cells = (
                f"{statistics.median(each.victim_gone for each in chosen):.1f}",
                f"{statistics.median(each.helpers_gone for each in chosen):.1f}",
                *_median_and_worst([each.process_gone for each in chosen]),
                *_median_and_worst([each.all_gone for each in chosen]),
            )
            rows.append((size, killed, *cells, str(len(chosen))))
    return Table(
        title="Milliseconds from SIGKILL, medians where nothing else is said",
        columns=(
            "member",
            "killed",
            "itself gone",
            "helpers gone",
            "TensorFlow gone",
            "worst",
            "all gone",
            "worst",
            "runs",
        ),
        rows=tuple(rows),
    )


def _differences(samples: list[Sample]) -> Table:
    rows = []
    for size in SIZES:
        by_task = statistics.median(each.all_gone for each in _of(samples, size, TASK))
        direct = statistics.median(each.process_gone for each in _of(samples, size, DIRECT))
        ratio = f"{by_task / direct:.2f}"
        rows.append((size, f"{by_task:.1f}", f"{direct:.1f}", f"{by_task - direct:+.1f}", ratio))
    return Table(
        title="What is compared, in medians",
        columns=(
            "member",
            "task killed: all gone",
            "TensorFlow killed: it is gone",
            "difference",
            "ratio",
        ),
        rows=tuple(rows),
    )


def _all_values(samples: list[Sample]) -> Table:
    rows = []
    for size in SIZES:
        by_task = [each.all_gone for each in _of(samples, size, TASK)]
        direct = [each.process_gone for each in _of(samples, size, DIRECT)]
        rows.append((size, _sorted(by_task), _sorted(direct)))
    return Table(
        title="The same, every run, sorted",
        columns=("member", "task killed: all gone", "TensorFlow killed: it is gone"),
        rows=tuple(rows),
    )


def _size_note(samples: list[Sample], size: str) -> str:
    resident = statistics.median(each.resident_mib for each in samples if each.size == size)
    return f"{size}: {SIZES[size]} MiB of tensors, {resident:.0f} MiB resident."


def _median_and_worst(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.1f}", f"{max(values):.1f}"


def _sorted(values: list[float]) -> str:
    return " ".join(f"{value:.1f}" for value in sorted(values))


def _spelled(sample: Sample) -> str:
    return (
        f"{sample.size}, {sample.killed} killed: itself gone after {sample.victim_gone:.1f} ms, "
        f"TensorFlow {sample.process_gone:.1f} ms, all {sample.processes} {sample.all_gone:.1f} ms"
    )


FIGURE = Figure(
    name="kill-latency",
    summary="how long TensorFlow outlives its killed Spark task, against a direct kill",
    measure=measure,
)
