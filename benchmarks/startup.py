"""How long it takes until `main_fun` is entered on two members, with TensorFlow imported.

Against what nobody can save: the same two imports at once, by the same interpreter, started by
hand. In turns, on executors on which Python has run before; and, beside it, on executors on which
nothing has.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine, run_processes, spark_session
from benchmarks.figure import Figure, Result, Settings
from benchmarks.startup_member import enter
from benchmarks.startup_result import Imports, Start, result

if TYPE_CHECKING:
    from coordinator.core.model import RunView

MEMBERS = 2
COLD_REPEATS = 3
"""At most: each needs a Spark session of its own, and no bound hangs on it."""

_TIMEOUT = 120.0
_IMPORT = "import tensorflow, time; print(time.time())"


def measure(settings: Settings) -> Result:
    """In turns, and each first as often as the other."""
    from examples.local_cluster import local_cluster

    starts: list[Start] = []
    imports: list[Imports] = []
    with local_cluster(executors=MEMBERS, cores=1) as spark:
        spark_session.warm_up(spark, MEMBERS)
        by_hand()  # or the first to be measured would read TensorFlow from the disk
        for repeat in range(settings.repeats):
            if repeat % 2 == 1:
                imports.append(by_hand())
            starts.append(start(spark))
            if repeat % 2 == 0:
                imports.append(by_hand())
            settings.say(
                f"{repeat + 1:3} of {settings.repeats}: main_fun entered after "
                f"{starts[-1].entered:.2f} s, by hand {imports[-1].gone:.2f} s"
            )
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
    cold: list[Start] = []
    for number in range(1, min(COLD_REPEATS, settings.repeats) + 1):
        with local_cluster(executors=MEMBERS, cores=1) as spark:
            spark_session.wait_for_executors(spark, MEMBERS)
            cold.append(start(spark))
        settings.say(f"cold, {number:3}: main_fun entered after {cold[-1].entered:.2f} s")
    return result(starts, cold, imports, java)


def by_hand(count: int = MEMBERS) -> Imports:
    """So many processes that import TensorFlow and nothing else, started together."""
    was_quiet = machine.settle()
    worked, cpu = machine.core_seconds(), _cpu_of_children()
    began_at = time.time()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _IMPORT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # As members have it: Linux may share out a busy machine by sessions.
            start_new_session=True,
        )
        for _ in range(count)
    ]
    try:
        imported_at = [float(process.communicate(timeout=_TIMEOUT)[0]) for process in processes]
        gone_at = time.time()
    finally:
        for process in processes:
            process.kill()  # does nothing to one that has been waited for
            process.wait()
    return Imports(
        imported=max(imported_at) - began_at,
        gone=gone_at - began_at,
        cpu=_cpu_of_children() - cpu,
        worked=machine.core_seconds() - worked,
        was_quiet=was_quiet,
    )


def start(spark: Any) -> Start:
    """One run, up to its end."""
    from coordinator import Roles, TFCluster

    was_quiet = machine.settle()
    phases = _Phases()
    with tempfile.TemporaryDirectory(prefix="tflease-bench-") as scratch:
        gate = Path(scratch, "gate")
        worked = machine.core_seconds()
        began_at = time.time()
        cluster = TFCluster.run(
            spark,
            enter,
            {"gate": str(gate)},
            roles=Roles(worker=MEMBERS),
            name="startup",
            progress=phases,
        )
        returned_at = time.time()
        worked = machine.core_seconds() - worked
        try:
            moments = _look(spark, cluster.run_id)  # while all of it is there
            gate.touch()
            told = list(cluster.wait(_TIMEOUT).returned.values())
        finally:
            cluster.shutdown(grace=0.0)
    if len(told) != MEMBERS or not all(each["has_tensorflow"] for each in told):
        raise RuntimeError(f"expected TensorFlow on {MEMBERS} members, found {told}")
    moments |= phases.moments(cluster.status())
    moments["entered"] = max(each["entered_at"] for each in told)
    moments["returned"] = returned_at
    return Start(
        moments={name: at - began_at for name, at in moments.items()},
        cpu=sum(each["cpu"] for each in told),
        worked=worked,
        left=run_processes.left_behind(cluster.run_id),
        was_quiet=was_quiet,
    )


def _look(spark: Any, run_id: str) -> dict[str, float]:
    begun = run_processes.begun_at(run_id)
    moments = {part.partition(".")[2]: max(times) for part, times in begun.items()}
    moments["submitted"], moments["launched"] = spark_session.launched_at(
        spark, f"tflease-{run_id}"
    )
    return moments


class _Phases:
    """Follows a run as a display would, and keeps when the coordinator saw what."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}

    def __call__(self, view: RunView) -> None:
        for member in view.members:
            self._seen.setdefault(member.phase.value, {})[str(member.id)] = member.phase_at

    def moments(self, run: RunView) -> dict[str, float]:
        """Phases that pass within 0.1 s may not have been shown; the last to be ready is followed
        at once by the start of all, within milliseconds by their entering."""
        moments = {"created": run.created_at}
        if "reserved" in self._seen:
            moments["reserved"] = max(self._seen["reserved"].values())
        started = self._seen.get("starting") or self._seen.get("running")
        if started:
            moments["ready"] = min(started.values())
        return moments


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


FIGURE = Figure(
    name="startup",
    summary="from TFCluster.run() to main_fun on two members, against two imports by hand",
    measure=measure,
)
