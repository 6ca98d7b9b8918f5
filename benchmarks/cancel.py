"""From the driver's call to nothing left on the executors, for the two ways to call a run off; and
how long Spark itself takes to end a plain Python task.

Gone are the members with all their descendants, the agents and the sentinels. The Spark tasks'
Python workers are Spark's, which keeps them for the next task: they are not waited for.
"""

from __future__ import annotations

import math
import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, plain_task, run_processes, spark_session, stopwatch
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.kill_stand_ins import NOTHING
from benchmarks.spread import in_order, median_and_worst, verdict_on
from benchmarks.stopwatch import Process
from benchmarks.victim import cooperate

STOP = "cluster.stop()"
TAG = "cancelJobsWithTag(), a run"
SPARK = "cancelJobsWithTag(), a plain task"
OURS = (STOP, TAG)
WAYS = (*OURS, SPARK)

BOUND = 1.0
"""Seconds to all gone, in the worst, of both of ours."""

MEMBERS, SUPERVISION = "members", "sentinels and agents"
WORKER = "Python worker"

_COORDINATOR, _SENTINEL, _AGENT, _ = run_processes.PARTS
_GONE_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One cancel. Seconds from just before the call: until it returned, and until the last of each
    kind was gone; infinity for a kind of which somebody was ``left`` after the timeout."""

    way: str
    returned: float
    gone: Mapping[str, float]
    left: tuple[str, ...]
    was_quiet: bool

    @property
    def all_gone(self) -> float:
        """Until the very last."""
        return max(self.gone.values())


def measure(settings: Settings) -> Result:
    """Every cancel is the end of a job or run of its own; the ways take turns."""
    from examples.local_cluster import local_cluster

    plan = [way for repeat in range(settings.repeats) for way in _in_turn(repeat)]
    samples = []
    with (
        tempfile.TemporaryDirectory(prefix="tflease-bench-") as scratch,
        local_cluster(executors=1, cores=2) as spark,
    ):
        spark_session.warm_up(spark, 1)
        for number, way in enumerate(plan, 1):
            facts = Path(scratch, f"{os.getpid()}-{number}.json")
            sample = _plain(spark, facts) if way == SPARK else _run(spark, way)
            samples.append(sample)
            settings.say(f"{number:3} of {len(plan)}: {way}: {sample.all_gone:.3f} s")
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    return result(samples, java)


def _in_turn(repeat: int) -> tuple[str, ...]:
    """Each is first as often as any other."""
    first = repeat % len(WAYS)
    return WAYS[first:] + WAYS[:first]


def _run(spark: Any, way: str) -> Sample:
    """A run with a parameter server, which has no grace, and a worker that returns when told to."""
    from coordinator import ReleaseUnproven, Roles, TFCluster

    cluster = TFCluster.run(
        spark,
        cooperate,
        roles=Roles(ps=1, worker=1),
        grace={"ps": 0.0},
        name="cancel",
        progress=False,
    )
    left = []
    try:
        was_quiet = machine.settle()
        kinds = _kinds(cluster.run_id)
        call = {
            STOP: cluster.stop,
            TAG: lambda: spark.sparkContext.cancelJobsWithTag(f"tflease-{cluster.run_id}"),
        }[way]
        returned, gone = seconds_until_gone(call, list(kinds), _GONE_TIMEOUT)
    finally:
        try:
            cluster.shutdown(grace=0.0)
        except ReleaseUnproven as error:
            left.append(str(error))
    left += run_processes.left_behind(cluster.run_id)
    return _sample(way, returned, kinds, gone, left, was_quiet)


def _plain(spark: Any, facts: Path) -> Sample:
    """A plain Spark task that sleeps."""
    with plain_task.running(spark, NOTHING, facts) as task:
        was_quiet = machine.settle()
        returned, gone = seconds_until_gone(
            lambda: spark.sparkContext.cancelJobsWithTag(task.tag), [task.worker], _GONE_TIMEOUT
        )
    return _sample(SPARK, returned, {task.worker: WORKER}, gone, [], was_quiet)


def _kinds(run_id: str) -> dict[Process, str]:
    """Whatever the run has on its executors. Raises RuntimeError when that is not two members with
    all that belongs to them."""
    parts = {each: run_processes.part_of(each.pid) for each in run_processes.of_run(run_id)}
    counted = [list(parts.values()).count(part) for part in run_processes.PARTS]
    if counted != [1, 2, 2, 2]:
        raise RuntimeError(f"expected a coordinator and two of each other part, found {parts}")
    return {
        each: SUPERVISION if part in (_SENTINEL, _AGENT) else MEMBERS
        for each, part in parts.items()
        if part != _COORDINATOR
    }


def seconds_until_gone(
    call: Callable[[], object], processes: Sequence[Process], timeout: float
) -> tuple[float, dict[Process, float]]:
    """Of the call until it returned, and of each process until it was gone; those that are not
    gone at the timeout are missing. A thread watches, so that the call need not be back first.
    Raises ProcessLookupError when somebody is gone before it."""
    fds: dict[int, Process] = {}
    poller = select.epoll()
    try:
        for process in processes:
            fd = os.pidfd_open(process.pid)
            fds[fd] = process
            poller.register(fd, select.EPOLLIN)
            if Process.now(process.pid) != process:
                raise ProcessLookupError(f"{process} is gone")
        gone: dict[Process, float] = {}
        began_at = time.monotonic()
        watching = threading.Thread(target=_watch, args=(poller, dict(fds), gone, timeout))
        watching.start()
        try:
            call()
            returned = time.monotonic() - began_at
        finally:
            watching.join()
    finally:
        poller.close()
        for fd in fds:
            os.close(fd)
    return returned, gone


def _watch(
    poller: select.epoll, fds: dict[int, Process], gone: dict[Process, float], timeout: float
) -> None:
    began_at = time.monotonic()
    while fds and (patience := timeout - (time.monotonic() - began_at)) > 0:
        for fd, _ in poller.poll(patience):
            gone[fds.pop(fd)] = time.monotonic() - began_at
            poller.unregister(fd)


def _sample(
    way: str,
    returned: float,
    kinds: Mapping[Process, str],
    gone: Mapping[Process, float],
    left: Sequence[str],
    was_quiet: bool,
) -> Sample:
    last: dict[str, float] = {}
    for process, kind in kinds.items():
        last[kind] = max(last.get(kind, 0.0), gone.get(process, math.inf))
    late = [f"{each.pid} {stopwatch.command(each.pid)}" for each in kinds if each not in gone]
    return Sample(way, returned, last, (*late, *left), was_quiet)


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample], java: str) -> Result:
    """The tables and the verdict."""
    left = [f"{sample.way}: {line}" for sample in samples for line in sample.left]
    busy = sum(not sample.was_quiet for sample in samples)
    worst = {way: max(all_gone(samples, way)) for way in OURS}
    ratios = {
        way: median(all_gone(samples, SPARK)) / median(all_gone(samples, way)) for way in OURS
    }
    return Result(
        what=(
            "From the driver's call to every process gone that the run had on its executors, "
            "sentinels and agents included; beside it Spark's own end of a plain Python task."
        ),
        tables=(_times(samples), _all_values(samples)),
        notes=(
            "The run: one parameter server with a grace of 0 that serves, and one worker that "
            "returns when it is told to stop (the default grace). Both have imported TensorFlow.",
            "The plain task: mapInArrow, asleep. Spark kills its Python worker some time after the "
            "cancel; until then it goes on.",
            "A tag's cancel ends the job on the driver at once. Watched is what a run has on the "
            "executors. The Python workers of a run's tasks are Spark's and not waited for.",
            "Gone: the pidfd, opened before the call, became readable; watched by a thread of the "
            "driver.",
            "One local-cluster executor of two cores; each cancel ends a run or a job of its own.",
            machine.settling("cancel", busy, len(samples)),
            "After each run the processes of the machine were searched for what it left: "
            f"{len(left)} found.",
            *(f"LEFT BEHIND: {line}" for line in left),
        ),
        verdict="; ".join(
            f"{way}: all gone within {BOUND:g} s: {verdict_on(worst[way], BOUND)} (worst "
            f"{worst[way]:.2f} s; Spark's own end of a plain task takes {ratios[way]:.1f} times as "
            "long in the median)"
            for way in OURS
        ),
        is_sound=not left,
        machine={"Java": java},
    )


def all_gone(samples: Sequence[Sample], way: str) -> list[float]:
    """Seconds, in the order taken."""
    return [sample.all_gone for sample in samples if sample.way == way]


def _times(samples: Sequence[Sample]) -> Table:
    rows = []
    for way in WAYS:
        chosen = [sample for sample in samples if sample.way == way]
        cells = [f"{median(each.returned for each in chosen):.2f}"]
        for kind in (MEMBERS, SUPERVISION):
            values = [each.gone[kind] for each in chosen if kind in each.gone]
            cells.append(f"{median(values):.2f}" if values else "-")
        cells += median_and_worst(all_gone(samples, way), 2)
        ratio = median(all_gone(samples, way)) / median(all_gone(samples, SPARK))
        rows.append((way, *cells, f"{ratio:.2f}", str(len(chosen))))
    return Table(
        title="Seconds from the call, medians where nothing else is said",
        columns=(
            "",
            "the call returns",
            "members gone",
            "sentinels and agents gone",
            "all gone",
            "worst",
            "ratio to the plain task",
            "cancels",
        ),
        rows=tuple(rows),
    )


def _all_values(samples: Sequence[Sample]) -> Table:
    return Table(
        title="Every cancel, sorted: seconds until all are gone",
        columns=("", "all gone"),
        rows=tuple((way, in_order(all_gone(samples, way), 2)) for way in WAYS),
    )


FIGURE = Figure(
    name="cancel",
    summary="from the driver's call to a run's end, and Spark's own, to all gone",
    measure=measure,
)
