"""How long TensorFlow outlives its Spark task, against the fastest end there is.

Killed, in turns, on a real Spark executor: the Spark task's Python worker, as Spark itself does it
when it cancels a task; and, to compare, the same TensorFlow process directly. In both cases the
kernel has to free the same memory, so that the difference is what supervision costs.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import innocents, machine, stopwatch
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.member_tree import Tree, running
from benchmarks.spread import in_order, median_and_worst, verdict_on
from benchmarks.stopwatch import Answer, Question
from benchmarks.victim import HELPERS

MEDIAN_BOUND_MS = 20.0
WORST_BOUND_MS = 250.0
"""What was promised of the small member: so much more than the direct kill, at most, in the median;
and so much beyond the direct kill's worst in the worst."""

JUDGED = "small"
"""The size that the bounds are about; the other is there to inform."""

INNOCENTS = 20
"""Members of another run on the same executor, which all of the kills must leave alone."""

SIZES = {"small": 0, "large": 512}
"""MiB of tensors that the member holds."""

LARGE_EVERY = 5
"""The worst of a few says little, so there are many repetitions; the large member, whose kill is
mostly the freeing of its memory, takes part in every fifth. Odd: the two kinds of kill take turns
at being first, and must do so among these as well."""

TASK, DIRECT = "Spark task", "TensorFlow"
"""Who gets the SIGKILL: the Spark task's Python worker, or the TensorFlow process itself."""

_GONE_TIMEOUT = 30.0


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
    plan = [each for repeat in range(settings.repeats) for each in _kills(repeat)]
    with (
        tempfile.TemporaryDirectory(prefix="tflease-bench-") as scratch,
        # To Spark a core is only a number: the innocents wait, and need none.
        local_cluster(executors=1, cores=INNOCENTS + 4) as spark,
        innocents.beside(spark, INNOCENTS) as others,
    ):
        for number, (size, killed) in enumerate(plan, 1):
            sample = take(spark, Path(scratch, f"{number}.json"), size, killed)
            samples.append(sample)
            settings.say(f"{number:3} of {len(plan)}: {_spelled(sample)}")
        living = others.living()
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    return result(samples, java, living)


def _kills(repeat: int) -> list[tuple[str, str]]:
    """In turns, and each first as often as the other: a machine that slows down or speeds up does
    so for both."""
    sizes = [size for size in SIZES if size == "small" or repeat % LARGE_EVERY == 0]
    in_turn = (TASK, DIRECT) if repeat % 2 == 0 else (DIRECT, TASK)
    return [(size, killed) for size in sizes for killed in in_turn]


def take(spark: Any, facts: Path, size: str, killed: str) -> Sample:
    """One run, one kill."""
    with running(spark, facts, SIZES[size]) as tree:
        was_quiet = machine.settle()
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


def result(samples: list[Sample], java: str, living: int) -> Result:
    """The tables and the verdict. ``living``: innocents after the last kill."""
    left = [line for sample in samples for line in sample.left]
    late = sum(sample.late for sample in samples)
    busy = sum(not sample.was_quiet for sample in samples)
    in_median = {size: difference(samples, size) for size in SIZES}
    in_worst = {size: worst_difference(samples, size) for size in SIZES}
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
            machine.settling("kill", busy, len(samples)),
            f"Beside it on the same executor, all the time: {INNOCENTS} members of another run, "
            f"without TensorFlow, that wait. {living} of {INNOCENTS} lived through all kills: the "
            "same processes, and running for their coordinator.",
            *(f"LEFT BEHIND after {_GONE_TIMEOUT:g} s: {line}" for line in left),
        ),
        verdict=(
            f"the {JUDGED} member: at most {MEDIAN_BOUND_MS:g} ms more in the median: "
            f"{verdict_on(in_median[JUDGED], MEDIAN_BOUND_MS)} ({_each(in_median)}); "
            f"the worst at most {WORST_BOUND_MS:g} ms beyond the direct kill's worst: "
            f"{verdict_on(in_worst[JUDGED], WORST_BOUND_MS)} "
            f"({_each(in_worst)}; {_counts(samples)}); "
            f"innocents alive: {living} of {INNOCENTS}"
        ),
        is_sound=not left and living == INNOCENTS,
        machine={"Java": java},
    )


def difference(samples: list[Sample], size: str) -> float:
    """Milliseconds, in the median: the whole tree by its task, less the process by itself."""
    return median(by_task(samples, size)) - median(directly(samples, size))


def worst_difference(samples: list[Sample], size: str) -> float:
    """The same of the worst of each, which need not be of the same moment of the machine."""
    return max(by_task(samples, size)) - max(directly(samples, size))


def by_task(samples: list[Sample], size: str) -> list[float]:
    """Milliseconds from the kill of the task to the whole tree gone, in the order taken."""
    return [each.all_gone for each in _of(samples, size, TASK)]


def directly(samples: list[Sample], size: str) -> list[float]:
    """Milliseconds from the kill of the TensorFlow process to that process gone."""
    return [each.process_gone for each in _of(samples, size, DIRECT)]


def _each(differences: dict[str, float]) -> str:
    return ", ".join(f"{size} {value:+.1f} ms" for size, value in differences.items())


def _counts(samples: list[Sample]) -> str:
    counts = (f"{size} of {len(_of(samples, size, TASK))}" for size in SIZES)
    return f"{' and '.join(counts)} kills each"


def _of(samples: list[Sample], size: str, killed: str) -> list[Sample]:
    return [each for each in samples if (each.size, each.killed) == (size, killed)]


def _times(samples: list[Sample]) -> Table:
    rows = []
    for size in SIZES:
        for killed in (TASK, DIRECT):
            chosen = _of(samples, size, killed)
            cells = (
                f"{median(each.victim_gone for each in chosen):.1f}",
                f"{median(each.helpers_gone for each in chosen):.1f}",
                *median_and_worst([each.process_gone for each in chosen]),
                *median_and_worst([each.all_gone for each in chosen]),
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
        tree, process = by_task(samples, size), directly(samples, size)
        for how, of in (("median", median), ("worst", max)):
            ours, theirs = of(tree), of(process)
            difference = f"{ours - theirs:+.1f}"
            ratio = f"{ours / theirs:.2f}"
            rows.append((size, how, f"{ours:.1f}", f"{theirs:.1f}", difference, ratio))
    return Table(
        title="What is compared, in milliseconds",
        columns=(
            "member",
            "",
            "task killed: all gone",
            "TensorFlow killed: it is gone",
            "difference",
            "ratio",
        ),
        rows=tuple(rows),
    )


def _all_values(samples: list[Sample]) -> Table:
    rows = (
        (size, in_order(by_task(samples, size)), in_order(directly(samples, size)))
        for size in SIZES
    )
    return Table(
        title="The same, every run, sorted",
        columns=("member", "task killed: all gone", "TensorFlow killed: it is gone"),
        rows=tuple(rows),
    )


def _size_note(samples: list[Sample], size: str) -> str:
    resident = median(each.resident_mib for each in samples if each.size == size)
    return f"{size}: {SIZES[size]} MiB of tensors, {resident:.0f} MiB resident."


def _spelled(sample: Sample) -> str:
    return (
        f"{sample.size}, {sample.killed} killed: itself gone after {sample.victim_gone:.1f} ms, "
        f"TensorFlow {sample.process_gone:.1f} ms, all {sample.processes} {sample.all_gone:.1f} ms"
    )


FIGURE = Figure(
    name="kill-latency",
    summary="how long TensorFlow outlives its killed Spark task, against a direct kill",
    measure=measure,
    repeats=50,
)
