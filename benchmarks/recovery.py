"""A member dies, and training goes on: how soon all are back in `main_fun`, against four imports
of TensorFlow by hand; and how soon what goes wrong is known.

Kills and imports by hand take turns, on one Spark cluster. No grace: what a program wants to save
before it starts again is its own time.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import machine, run_processes, spark_session, startup
from benchmarks.figure import Figure, Result, Settings
from benchmarks.recovery_member import stall, wait
from benchmarks.recovery_result import Detection, result
from benchmarks.recovery_watch import (
    TIMEOUT,
    Pictures,
    Recovery,
    kill,
    stamps,
    wait_until_all_run,
)

MEMBERS = 4
STALL = 5.0
"""Seconds without a step after which a member is stuck, in this figure."""

DETECTIONS = 5
"""At most, of each kind: two of the three have settings of the product in them."""


def measure(settings: Settings) -> Result:
    """First the restarts, of one run; then each kind of trouble in runs of its own."""
    from examples.local_cluster import local_cluster

    with local_cluster(executors=2, cores=2) as spark:
        spark_session.warm_up(spark, 2)
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
        recoveries, imports, left = _restarts(spark, settings)
        detections = []
        for number in range(min(settings.repeats, DETECTIONS)):
            for take in (_exit, _silence, _stall):
                detection = take(spark)
                detections.append(detection)
                settings.say(f"{number + 1:3}: {detection.what}: {detection.seconds:.3f} s")
    return result(recoveries, imports, detections, left, STALL, java)


def _restarts(
    spark: Any, settings: Settings
) -> tuple[list[Recovery], list[startup.Imports], tuple[str, ...]]:
    from coordinator import RestartPolicy, Roles, TFCluster

    recoveries, imports = [], []
    startup.by_hand(MEMBERS)  # or the first to be measured would read TensorFlow from the disk
    pictures = Pictures()
    chosen = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="tflease-recovery-") as name:
        cluster = TFCluster.run(
            spark,
            wait,
            {"stamps": name},
            roles=Roles(worker=MEMBERS),
            name="recovery",
            grace={"worker": 0.0},
            restart=RestartPolicy(max_restarts=settings.repeats),
            progress=pictures,
        )
        try:
            for generation in range(1, settings.repeats + 1):
                wait_until_all_run(cluster, generation)
                was_quiet = machine.settle()
                found = kill(cluster, pictures, Path(name), generation, chosen.randrange(MEMBERS))
                recoveries.append(replace(found, was_quiet=was_quiet))
                imports.append(startup.by_hand(MEMBERS))
                settings.say(
                    f"{generation:3} of {settings.repeats}: main_fun entered again after "
                    f"{found.entered:.2f} s, by hand {imports[-1].gone:.2f} s"
                )
        finally:
            cluster.shutdown(grace=0.0)
    return recoveries, imports, run_processes.left_behind(str(cluster.run_id))


# --- what is noticed, and when --------------------------------------------------------------------


def _run(spark: Any, main_fun: Any, folder: str, pictures: Pictures, **options: Any) -> Any:
    from coordinator import Roles, TFCluster

    return TFCluster.run(
        spark,
        main_fun,
        {"stamps": folder},
        roles=Roles(worker=1),
        preload=(),
        name="detection",
        grace={"worker": 0.0},
        progress=pictures,
        **options,
    )


def _exit(spark: Any) -> Detection:
    """The process is killed: when does the coordinator know?"""
    with tempfile.TemporaryDirectory(prefix="tflease-recovery-") as folder:
        cluster = _run(spark, wait, folder, Pictures())
        try:
            pid = stamps(Path(folder), 1, 1)[0]["pid"]
            was_quiet = machine.settle()
            at = time.time()
            os.kill(pid, signal.SIGKILL)
            _wait_for(lambda: cluster.status().members[0].phase.value == "exited")
            seconds = cluster.status().members[0].phase_at - at
        finally:
            cluster.shutdown(grace=0.0)
    return Detection("process exit", seconds, 0.0, was_quiet)


def _silence(spark: Any) -> Detection:
    """Agent and sentinel are stopped, as with a host that is gone: when is the member lost?"""
    with tempfile.TemporaryDirectory(prefix="tflease-recovery-") as folder:
        cluster = _run(spark, wait, folder, Pictures())
        stopped: list[psutil.Process] = []
        try:
            pid = stamps(Path(folder), 1, 1)[0]["pid"]
            was_quiet = machine.settle()
            sentinel = psutil.Process(pid).parent()
            assert sentinel is not None
            agents = [
                child
                for child in sentinel.children()
                if run_processes.part_of(child.pid) == "executor_agent.agent"
            ]
            at = time.time()
            for process in (*agents, sentinel):
                process.suspend()
                stopped.append(process)
            _wait_for(lambda: cluster.status().members[0].phase.value in ("lost", "fenced"))
            seconds = cluster.status().members[0].phase_at - at
            ttl = cluster.status().spec.liveness_ttl
        finally:
            for process in stopped:
                process.resume()
            cluster.shutdown(grace=0.0)
    if len(stopped) != 2:
        raise RuntimeError(f"an agent and a sentinel were to be stopped, not {stopped}")
    return Detection("agent silent", seconds, ttl, was_quiet)


def _stall(spark: Any) -> Detection:
    """No step comes: when does the driver know? The stacks are in it."""
    with tempfile.TemporaryDirectory(prefix="tflease-recovery-") as folder:
        pictures = Pictures()
        cluster = _run(spark, stall, folder, pictures, stall_timeouts={"step": STALL})
        try:
            at = stamps(Path(folder), 1, 1)[0]["at"]
            _wait_for(lambda: cluster.status().failure is not None)
            seconds = min(pictures.failed_at, time.time()) - at
            summary = cluster.status().failure.summary
        finally:
            cluster.shutdown(grace=0.0)
    return Detection("stall", seconds, STALL, True, summary)


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not noticed within {TIMEOUT:g} s")
        time.sleep(0.01)


FIGURE = Figure(
    name="recovery",
    summary="from the death of a member to main_fun on all of 4 again, against imports by hand",
    measure=measure,
    repeats=5,
)
