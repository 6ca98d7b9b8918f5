"""What the tests of restarts share: runs that may restart, who is killed, and what came of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from coordinator import RestartPolicy, Roles, TFCluster
from coordinator.core.model import MemberPhase, RunPhase
from tests.spark.helpers import DEADLINE, command, eventually, marked

# As a test's own main_fun, what it uses of this module is sent by value: executors have no tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

THREE = RestartPolicy(max_restarts=3, backoff=0.05)

GATE = "gate"


def wait_at_the_gate(args: Any, ctx: Any) -> int:
    """Returns its generation as soon as there is a gate."""
    while not Path(args["folder"], GATE).exists() and not ctx.should_stop:
        time.sleep(0.02)
    return int(ctx.generation)


def begin(
    spark: Any, main_fun: Any, folder: Path, roles: Roles | None = None, **options: Any
) -> TFCluster:
    """A run that may be restarted three times, without TensorFlow unless told otherwise."""
    usual = {"preload": (), "restart": THREE, "progress": False, "reservation_timeout": 90.0}
    args = {"folder": str(folder)}
    return TFCluster.run(spark, main_fun, args, roles=roles or Roles(worker=2), **usual | options)


def wait_for_generation(cluster: TFCluster, number: int, timeout: float = DEADLINE) -> None:
    """Until all members of it are in ``main_fun``. Raises what ended the run before."""

    def is_running() -> bool:
        run = cluster.status()
        if run.phase in (RunPhase.STOPPING, RunPhase.FAILED, RunPhase.CANCELLED):
            cluster.wait(DEADLINE)
        phases = {member.phase for member in run.members}
        return run.generation == number and phases == {MemberPhase.RUNNING}

    eventually(is_running, f"generation {number} to run", timeout)


def wait_for_step(cluster: TFCluster, step: int) -> None:
    """Until somebody has reported it. Raises what ended the run before."""

    def is_there() -> bool:
        run = cluster.status()
        if run.phase in (RunPhase.STOPPING, RunPhase.FAILED, RunPhase.CANCELLED):
            cluster.wait(DEADLINE)
        return max(member.step for member in run.members) >= step

    eventually(is_there, f"step {step}", 2 * DEADLINE)


def process_of(cluster: TFCluster, member: str) -> psutil.Process:
    """That of the member's incarnation of now, which runs the user's function."""
    return _of(cluster, member, "executor_agent.bootstrap")


def agent_of(cluster: TFCluster, member: str) -> psutil.Process:
    return _of(cluster, member, "executor_agent.agent")


def spark_worker_of(cluster: TFCluster, member: str) -> psutil.Process:
    """Spark's Python worker above the member: its task."""
    worker = agent_of(cluster, member).parents()[1]
    assert "pyspark.daemon" in command(worker)
    return worker


def executor_of(cluster: TFCluster, member: str) -> psutil.Process:
    """The JVM above the member."""
    executor = agent_of(cluster, member).parents()[3]
    assert "CoarseGrainedExecutorBackend" in command(executor)
    return executor


def _of(cluster: TFCluster, member: str, program: str) -> psutil.Process:
    view = next(each for each in cluster.status().members if str(each.id) == member)
    marker = f"{cluster.run_id}/{member}/{view.incarnation}"
    for process in marked(cluster.run_id, member):
        if program in command(process) and process.environ()["TFLEASE_MEMBER"] == marker:
            return process
    raise AssertionError(f"{marker} has no process of {program}")


def history(cluster: TFCluster) -> list[tuple[str, str, int]]:
    """Who was to blame, for what, and in which generation, for each restart."""
    restarts = cluster.status().restarts
    return [(str(each.member), each.cause.value, each.generation) for each in restarts]


def left_of(cluster: TFCluster) -> list[str]:
    """Processes of the run that still live."""
    return [command(process) for process in marked(cluster.run_id)]
