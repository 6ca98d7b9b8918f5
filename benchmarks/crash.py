"""How soon the driver has the exception when a TensorFlow process crashes.

From the moment before the crash, which the process itself writes down, to `TrainingFailed` raised
by `cluster.wait()`: for a member by itself, for one of two, and for members that look like victims
of another, where the verdict has to wait for who is to blame.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import machine, run_processes, spark_session
from benchmarks.crash_member import KILL, LATE, LATER, MESSAGE, PEER, RAISE, STAY, play
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.spread import in_order, median_and_worst, verdict_on

if TYPE_CHECKING:
    from coordinator.core.model import Failure

BOUND = 1.0
"""Seconds. What was promised when it is the only member; of several: the verdict's wait."""

WAITING_REPEATS = 3
"""At most, of the cases in which the verdict waits: there the time is a setting of the product."""


@dataclass(frozen=True, slots=True)
class Case:
    """``parts`` by member, ``culprit``: whose crash is to be told, and from which it counts.
    ``waits``: the verdict waits for somebody else before it blames anybody."""

    name: str
    parts: tuple[str, ...]
    culprit: int = 0
    waits: bool = False


ALONE = (Case("the only member raises", (RAISE,)), Case("the only member is killed", (KILL,)))
PAIR = (Case("one of 2 raises", (RAISE, STAY)), Case("one of 2 is killed", (KILL, STAY)))
LATE_CULPRIT = Case("one loses its peer, which raises later", (PEER, LATE), culprit=1, waits=True)
NO_CULPRIT = Case("one loses its peer, which goes on", (PEER, STAY), waits=True)
CASES = (*ALONE, *PAIR, LATE_CULPRIT, NO_CULPRIT)


@dataclass(frozen=True, slots=True)
class Sample:
    """One crash. Seconds from the culprit's: until the coordinator had seen its end (``seen``),
    and until the driver had the exception (``raised``); ``since_first``: from the first crash of
    all. ``wrong``: what the exception should have said and did not."""

    case: Case
    seen: float
    raised: float
    since_first: float
    ttl: float
    wrong: str
    left: tuple[str, ...]
    was_quiet: bool


def measure(settings: Settings) -> Result:
    """Every crash is the end of a run of its own; the cases take turns."""
    from examples.local_cluster import local_cluster

    plan = [
        case
        for repeat in range(settings.repeats)
        for case in CASES
        if not case.waits or repeat < WAITING_REPEATS
    ]
    samples = []
    with local_cluster(executors=2, cores=1) as spark:
        spark_session.warm_up(spark, 2)
        for number, case in enumerate(plan, 1):
            sample = take(spark, case)
            samples.append(sample)
            settings.say(f"{number:3} of {len(plan)}: {case.name}: {sample.raised:.3f} s")
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    return result(samples, java)


def take(spark: Any, case: Case) -> Sample:
    """One run, up to its end."""
    from coordinator import Roles, TFCluster, TrainingFailed

    with tempfile.TemporaryDirectory(prefix="tflease-bench-") as folder:
        gate = Path(folder, "gate")
        cluster = TFCluster.run(
            spark,
            play,
            {"parts": case.parts, "gate": str(gate), "stamps": folder},
            roles=Roles(worker=len(case.parts)),
            name="crash",
            progress=False,
        )
        try:
            was_quiet = machine.settle()
            gate.touch()
            try:
                cluster.wait(120.0)
            except TrainingFailed as error:
                raised_at = time.time()
                failure, text = error.failure, str(error)
            else:
                raise RuntimeError("the run went well although a member crashed")
        finally:
            cluster.shutdown(grace=0.0)
        stamps = {
            index: _stamp(Path(folder, str(index)), case)
            for index, part in enumerate(case.parts)
            if part != STAY
        }
    run = cluster.status()
    return Sample(
        case=case,
        seen=run.members[case.culprit].phase_at - stamps[case.culprit],
        raised=raised_at - stamps[case.culprit],
        since_first=raised_at - min(stamps.values()),
        ttl=run.spec.liveness_ttl,
        wrong=misses(case, failure, text),
        left=run_processes.left_behind(cluster.run_id),
        was_quiet=was_quiet,
    )


def _stamp(path: Path, case: Case) -> float:
    if not path.exists():
        raise RuntimeError(f"{case.name}: member {path.name} was stopped before it could crash")
    return float(path.read_text())


def misses(case: Case, failure: Failure | None, text: str) -> str:
    """What is wrong with the exception; "" when it tells the whole story."""
    from coordinator.core.model import Cause

    part = case.parts[case.culprit]
    cause = {KILL: Cause.KILLED_BY_SIGNAL, PEER: Cause.PEER_LOST}.get(part, Cause.USER_EXCEPTION)
    if failure is None or failure.member is None:
        return "no member is blamed"
    if failure.member.index != case.culprit:
        return f"{failure.member} is blamed"
    if failure.cause is not cause:
        return f"the cause is {failure.cause.value!r}, not {cause.value!r}"
    wanted = ("signal 9",) if part == KILL else (MESSAGE, "Traceback", "in die")
    missing = [each for each in wanted if each not in text]
    return f"its text lacks {missing}" if missing else ""


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample], java: str) -> Result:
    """The tables and the verdict."""
    left = [line for sample in samples for line in sample.left]
    wrong = [f"{sample.case.name}: {sample.wrong}" for sample in samples if sample.wrong]
    ttl = samples[0].ttl
    alone, pair = _worst(samples, ALONE), _worst(samples, PAIR)
    busy = sum(not sample.was_quiet for sample in samples)
    return Result(
        what=(
            "From the crash of a TensorFlow process to TrainingFailed on the driver, raised by "
            "cluster.wait(), with the traceback or the signal."
        ),
        tables=(_times(samples), _all_values(samples)),
        notes=(
            "The process writes down the time and then raises, or sends itself SIGKILL. The driver "
            "waits in cluster.wait() and notes the time when that raises.",
            "The coordinator knows: it has the report of the end, with the sentinel's proof. From "
            "there the others are told to stop and have to be gone; the member that stays leaves "
            "when it is told to.",
            "Lost a peer: a ConnectionResetError, as TensorFlow raises it when another member is "
            f"gone. Then nobody is blamed before a better cause has shown itself or {ttl:g} s (the "
            f"liveness time) have passed. The peer that raises later does so {LATER:g} s after.",
            "One local-cluster of 2 executors with one core each for all runs; each crash ends a "
            "run. Members have imported TensorFlow (the default preload) and use none of it.",
            f"Cases in which the verdict waits are measured {WAITING_REPEATS} times at most.",
            machine.settling("crash", busy, len(samples)),
            "Checked each time: the member that is blamed, the cause, and that the text of the "
            f"exception has the traceback or the signal: {len(wrong)} wrong. Afterwards the "
            f"processes of the machine were searched for what the run left: {len(left)} found.",
            *(f"WRONG: {line}" for line in wrong),
            *(f"LEFT BEHIND: {line}" for line in left),
        ),
        verdict=(
            f"the only member: under {BOUND:g} s: {verdict_on(alone, BOUND)} (worst {alone:.2f} s);"
            f" one of 2: within the verdict's wait of {ttl:g} s: {verdict_on(pair, ttl)} (worst "
            f"{pair:.2f} s); after a peer was lost: {_worst(samples, (LATE_CULPRIT,)):.2f} s from "
            f"the culprit's crash, {_worst(samples, (NO_CULPRIT,)):.2f} s where there is none "
            "(the wait itself)"
        ),
        is_sound=not left and not wrong,
        machine={"Java": java},
    )


def _of(samples: Sequence[Sample], case: Case) -> list[Sample]:
    return [sample for sample in samples if sample.case == case]


def _worst(samples: Sequence[Sample], cases: Sequence[Case]) -> float:
    return max(sample.raised for sample in samples if sample.case in cases)


def _times(samples: Sequence[Sample]) -> Table:
    rows = []
    for case in CASES:
        chosen = _of(samples, case)
        cells = (
            f"{median(each.seen for each in chosen):.2f}",
            *median_and_worst([each.raised for each in chosen], 2),
            f"{median(each.since_first for each in chosen):.2f}",
        )
        rows.append((case.name, *cells, str(len(chosen))))
    return Table(
        title="Seconds from the crash that is to blame, medians where nothing else is said",
        columns=(
            "",
            "the coordinator knows",
            "the driver has the exception",
            "worst",
            "since the first crash of all",
            "runs",
        ),
        rows=tuple(rows),
    )


def _all_values(samples: Sequence[Sample]) -> Table:
    rows = (
        (case.name, in_order([each.raised for each in _of(samples, case)], 2)) for case in CASES
    )
    return Table(
        title="Every run, sorted: seconds until the driver has the exception",
        columns=("", "from the crash that is to blame"),
        rows=tuple(rows),
    )


FIGURE = Figure(
    name="crash",
    summary="from the crash of a TensorFlow process to its exception on the driver",
    measure=measure,
)
