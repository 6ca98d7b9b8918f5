"""O1, O2: nothing outlives the Spark task, on real executors.

The wider matrix of who dies how is ``make chaos``'s; these are its most common rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster, TrainingFailed
from coordinator.core.model import Cause
from tests.spark.helpers import (
    eventually,
    marked,
    sentinel_of,
    spark_worker_of,
    wait_for_file,
    wait_until_gone,
)


def be_nasty(args: Any, ctx: Any) -> None:
    """Ignores signals; has a plain child, one in a session of its own, one forked twice."""
    import signal
    import time

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(args["ready"]).touch()
            time.sleep(1000)
        os._exit(0)
    time.sleep(1000)


@pytest.fixture
def nasty(spark: Any, gate: Path) -> Any:
    """A run whose single member is nasty, with all its processes."""
    cluster = TFCluster.run(
        spark,
        be_nasty,
        {"ready": str(gate)},
        roles=Roles(worker=1),
        preload=(),
        progress=False,
        grace={"worker": 0.0},
        reservation_timeout=120.0,
    )
    try:
        wait_for_file(gate)
        yield cluster
    finally:
        cluster.shutdown()


def everything(cluster: TFCluster) -> list[psutil.Process]:
    """Sentinel, agent, member and its descendants: they must all be there to be killed."""
    found = [sentinel_of(cluster.run_id, "worker:0"), *marked(cluster.run_id)]
    assert len(found) >= 6, found  # sentinel, agent, member, 3 descendants
    return found


def test_a_sigkilled_spark_worker_takes_the_whole_tree_with_it(nasty: TFCluster) -> None:
    """O1: all that `pyspark.daemon` does on cancel is to SIGKILL the worker."""
    processes = everything(nasty)
    spark_worker_of(nasty.run_id, "worker:0").kill()
    wait_until_gone(processes, "survived the Spark worker")
    with pytest.raises(TrainingFailed) as caught:
        nasty.wait(120)
    assert caught.value.failure is not None
    assert caught.value.failure.cause is Cause.PREEMPTED


def test_a_cancelled_job_takes_the_whole_tree_with_it(spark: Any, nasty: TFCluster) -> None:
    """O1: a notebook's cell is interrupted, a job tag cancelled."""
    processes = everything(nasty)
    spark.sparkContext.cancelJobsWithTag(f"tflease-{nasty.run_id}")
    wait_until_gone(processes, "survived the cancelled job")
    with pytest.raises(TrainingFailed, match="lost its Spark task"):
        nasty.wait(120)


def test_a_shutdown_takes_the_whole_tree_with_it(nasty: TFCluster) -> None:
    """O2."""
    processes = everything(nasty)
    nasty.shutdown()
    assert [process for process in processes if process.is_running()] == []


def test_a_sigkilled_sentinel_takes_the_whole_tree_with_it(nasty: TFCluster) -> None:
    processes = everything(nasty)
    sentinel_of(nasty.run_id, "worker:0").kill()
    wait_until_gone(processes, "survived the sentinel")
    with pytest.raises(TrainingFailed, match="sentinel"):
        nasty.wait(120)


def test_a_sigkilled_agent_takes_the_whole_tree_with_it(nasty: TFCluster) -> None:
    from tests.spark.helpers import agent_of

    processes = everything(nasty)
    agent_of(nasty.run_id, "worker:0").kill()
    wait_until_gone(processes, "survived the agent")
    eventually(lambda: nasty.status().settled, "the run to be settled")
    with pytest.raises(TrainingFailed, match="worker:0"):
        nasty.wait(120)
