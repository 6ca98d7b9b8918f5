"""What outlives a killed Spark task: below us, and below the ways in which others start processes.

The Spark task's Python worker gets the SIGKILL that Spark itself sends when it cancels a task. The
same small member with the same helpers was launched by it in turns by each of the ways, and is
watched for a while. What is left then is killed here, and it is checked that nobody remains.
"""

from __future__ import annotations

import os
import select
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import kill_stand_ins, machine, plain_task, run_processes, spark_session, stopwatch
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.kill_stand_ins import CHILD, GROUP, PROCESSES, STAND_INS, TOKEN, WATCHER
from benchmarks.spread import in_order
from benchmarks.stopwatch import Process, Question

OURS = "tflease, grace 0"
WAYS = (*STAND_INS, OURS)

PATIENCE = 3.0
"""Seconds for which what was launched is watched after the kill."""

_SPARK = {"spark.task.maxFailures": "1"}  # a task that was killed must not begin again

_END_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One kill. ``gone``: milliseconds, by name, of those that went; ``left``: what was there even
    after the benchmark had killed the survivors."""

    way: str
    worker_gone: float
    gone: Mapping[str, float]
    left: tuple[str, ...]
    was_quiet: bool

    @property
    def survivors(self) -> tuple[str, ...]:
        """Who was still there when the patience had ended."""
        return tuple(name for name in PROCESSES if name not in self.gone)


@dataclass(frozen=True, slots=True)
class _Launched:
    worker: Process
    processes: Mapping[str, Process]
    run_id: str = ""


def measure(settings: Settings) -> Result:
    """Each kill is a Spark job of its own; the ways take turns."""
    from examples.local_cluster import local_cluster

    plan = [way for repeat in range(settings.repeats) for way in _in_turn(repeat)]
    samples = []
    with (
        tempfile.TemporaryDirectory(prefix="tflease-bench-") as scratch,
        local_cluster(executors=1, cores=2, conf=_SPARK) as spark,
    ):
        spark_session.warm_up(spark, 1)
        for number, way in enumerate(plan, 1):
            sample = take(spark, way, Path(scratch, f"{os.getpid()}-{number}.json"))
            samples.append(sample)
            settings.say(f"{number:3} of {len(plan)}: {way}: {_spelled(sample)}")
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    return result(samples, java)


def _in_turn(repeat: int) -> tuple[str, ...]:
    """Each is first, second and so on as often as any other."""
    first = repeat % len(WAYS)
    return WAYS[first:] + WAYS[:first]


def take(spark: Any, way: str, facts: Path) -> Sample:
    """One launch, one kill, and an end to whatever is left of it."""
    launching = _by_us(spark, facts) if way == OURS else _by_stand_in(spark, way, facts)
    with launching as launched:
        try:
            was_quiet = machine.settle()
            answer = stopwatch.ask(
                Question(
                    victim=launched.worker,
                    watched=tuple(launched.processes.values()),
                    marker=facts.stem,  # nobody has it: what the stand-ins fork carries a token
                    spared=0,
                    timeout=PATIENCE,
                )
            )
        finally:
            end([*launched.processes.values(), *carrying(facts.stem)])
    left = [f"{each.pid} {stopwatch.command(each.pid)}" for each in carrying(facts.stem)]
    if launched.run_id:
        left += run_processes.left_behind(launched.run_id)
    names = {process.pid: name for name, process in launched.processes.items()}
    return Sample(
        way=way,
        worker_gone=1000 * answer.victim_gone,
        gone={names[pid]: 1000 * seconds for pid, seconds in answer.gone.items()},
        left=tuple(left),
        was_quiet=was_quiet,
    )


@contextmanager
def _by_stand_in(spark: Any, way: str, facts: Path) -> Iterator[_Launched]:
    try:
        with plain_task.running(spark, way, facts) as task:
            yield _Launched(task.worker, task.launched)
    finally:
        end(carrying(facts.stem))  # a launch that failed half-way


@contextmanager
def _by_us(spark: Any, facts: Path) -> Iterator[_Launched]:
    from coordinator import Roles, TFCluster

    cluster = TFCluster.run(
        spark,
        kill_stand_ins.below_tflease,
        {"facts": str(facts), "token": facts.stem},
        roles=Roles(worker=1),
        grace={"worker": 0.0},
        preload=(),
        name="kill-others",
        progress=False,
    )
    try:
        launched = plain_task.launched(facts)
        sentinel = psutil.Process(launched[PROCESSES[0]].pid).ppid()
        worker = Process.now(psutil.Process(sentinel).ppid())
        yield _Launched(worker, launched, cluster.run_id)
    finally:
        cluster.shutdown(grace=0.0)


def carrying(token: str) -> list[Process]:
    """Everything alive that was started with this token."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):  # it ends while we look
            if each.environ().get(TOKEN) == token and each.status() != psutil.STATUS_ZOMBIE:
                found.append(Process.now(each.pid))
    return found


def end(processes: Sequence[Process]) -> None:
    """SIGKILL to exactly these, and wait until each is gone. Raises TimeoutError."""
    for process in processes:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(process.pid)
            try:
                if Process.now(process.pid) == process:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    if not select.select([fd], [], [], _END_TIMEOUT)[0]:
                        raise TimeoutError(f"{process} outlives SIGKILL")
            finally:
                os.close(fd)


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample], java: str) -> Result:
    """The tables and the verdict."""
    left = [f"{sample.way}: {line}" for sample in samples for line in sample.left]
    busy = sum(not sample.was_quiet for sample in samples)
    ours = _survivors(samples, OURS)
    return Result(
        what=(
            "What outlives SIGKILL of the Spark task's Python worker, and how soon the others are "
            "gone: the same small member and its helpers, launched by tflease and in the ways of "
            "others."
        ),
        tables=(_table(samples), _by_process(samples), _all_values(samples)),
        notes=(
            f"Launched each time: {', '.join(PROCESSES)}. The member is a Python process without "
            "TensorFlow that SIGTERM ends; the helpers are `sleep`.",
            f"{CHILD}: multiprocessing.Process(daemon=True), by fork, in the Spark task.",
            f"{WATCHER}: a process between the task and the member, a thread of which looks every "
            "0.5 s whether its parent is still the same, then sends the member SIGTERM; that "
            "thread is pyspark.ml.torch's own code.",
            f"{GROUP}: subprocess with start_new_session, and killpg in `finally` and by atexit.",
            "Stand-ins: they launch and look after processes as those do. TensorFlowOnSpark and "
            "TorchDistributor themselves were not run.",
            f"Watched by pidfd for {PATIENCE:g} s after the kill; a survivor still runs then. "
            "Each kill is a Spark job of its own on a local-cluster executor, in turns.",
            machine.settling("kill", busy, len(samples)),
            "Afterwards the benchmark killed the survivors and searched the machine for what "
            f"carried the kill's token: {len(left)} found.",
            *(f"LEFT BEHIND: {line}" for line in left),
        ),
        verdict=(
            f"nothing outlives the task below tflease: {'met' if not ours else 'MISSED'} "
            f"({_of_how_many(samples, OURS)}; "
            f"{'; '.join(f'{way}: {_of_how_many(samples, way)}' for way in STAND_INS)})"
        ),
        is_sound=not left,
        machine={"Java": java},
    )


def _of(samples: Sequence[Sample], way: str) -> list[Sample]:
    return [sample for sample in samples if sample.way == way]


def _survivors(samples: Sequence[Sample], way: str) -> Counter[str]:
    return Counter(name for sample in _of(samples, way) for name in sample.survivors)


def _of_how_many(samples: Sequence[Sample], way: str) -> str:
    survived = _survivors(samples, way).total()
    return f"{survived} of {len(PROCESSES) * len(_of(samples, way))} survive"


def times(samples: Sequence[Sample], way: str) -> list[float]:
    """Milliseconds of each kill until the last of those that went was gone; kills that nobody
    went of are left out."""
    return [max(sample.gone.values()) for sample in _of(samples, way) if sample.gone]


def _table(samples: Sequence[Sample]) -> Table:
    rows = []
    for way in WAYS:
        went = times(samples, way)
        cells = ("-", "-", "-")
        if went:
            ours = times(samples, OURS)
            ratio = f"{median(went) / median(ours):.1f}" if ours else "-"
            cells = (f"{median(went):.1f}", f"{max(went):.1f}", ratio)
        who = ", ".join(name for name in PROCESSES if _survivors(samples, way)[name]) or "nobody"
        kills = str(len(_of(samples, way)))
        rows.append((way, _of_how_many(samples, way), who, *cells, kills))
    return Table(
        title="Who survives, and when the last of those that go is gone, in milliseconds",
        columns=("launched by", "survivors", "who", "median", "worst", "ratio to tflease", "kills"),
        rows=tuple(rows),
    )


def _by_process(samples: Sequence[Sample]) -> Table:
    rows = []
    for way in WAYS:
        survived, of = _survivors(samples, way), len(_of(samples, way))
        rows.append((way, *(f"{survived[name]} of {of}" for name in PROCESSES)))
    return Table(
        title="Survived, by process", columns=("launched by", *PROCESSES), rows=tuple(rows)
    )


def _all_values(samples: Sequence[Sample]) -> Table:
    rows = ((way, in_order(times(samples, way)) or "-") for way in WAYS)
    return Table(
        title="Every kill, sorted: milliseconds until the last of those that go is gone",
        columns=("launched by", ""),
        rows=tuple(rows),
    )


def _spelled(sample: Sample) -> str:
    survivors = ", ".join(sample.survivors) or "nobody"
    last = f"{max(sample.gone.values()):.1f} ms" if sample.gone else "-"
    return f"the last to go: {last}; left: {survivors}"


FIGURE = Figure(
    name="kill-others",
    summary="what outlives a killed Spark task: below tflease, and below others",
    measure=measure,
)
