"""Runs that go on when Spark itself loses something: an executor, a whole worker, or its patience
with a task. The driver submits another job then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import ReleaseUnproven, Roles, TFCluster
from coordinator.core.model import Cause
from tests.chaos import memory
from tests.conftest import LongLived
from tests.spark.application import Application, application
from tests.spark.helpers import command, eventually
from tests.spark.standalone import StandaloneCluster, standalone_cluster
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    executor_of,
    history,
    left_of,
    process_of,
    wait_at_the_gate,
    wait_for_generation,
)
from tests.spark.topologies.scenario import executor_host

pytestmark = pytest.mark.timeout(300)

HOSTS = ("127.0.0.1", "127.0.0.2")

CONF = {"spark.executor.memory": "512m", "spark.deploy.maxExecutorRetries": "-1"}

ONE_EACH = {"spark.executor.cores": "2", "spark.cores.max": "4"}
"""An executor of two slots on each of two workers."""

SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    # Without it a stage of one task, such as a member's, is never speculated on.
    "spark.speculation.task.duration.threshold": "2s",
}

PREEMPTED = Cause.PREEMPTED.value


@pytest.fixture(scope="module")
def local(long_lived: LongLived) -> Iterator[Application]:
    """Two executors of two slots, which Spark starts again when they die."""
    with application("local-cluster[2,2,1024]", CONF, executors=2) as driver:
        long_lived.allow_tree(driver.pid)
        yield driver


@pytest.fixture
def cluster(
    tmp_path_factory: pytest.TempPathFactory, long_lived: LongLived
) -> Iterator[StandaloneCluster]:
    """Of two hosts, one of which may be lost."""
    folder = tmp_path_factory.mktemp("standalone")
    with standalone_cluster(folder / "cluster", HOSTS, cores=2) as cluster:
        for pid in cluster.pids:
            long_lived.allow_tree(pid)
        yield cluster
    shutil.rmtree(folder)


def outcome_of(cluster: TFCluster, folder: Path, generation: int) -> dict[str, Any]:
    """After the end, which this brings about."""
    wait_for_generation(cluster, generation, 240.0)
    (folder / GATE).touch()
    returned = dict(cluster.wait(60).returned)
    unproven = ""
    try:
        cluster.shutdown()
    except ReleaseUnproven as error:
        unproven = str(error)
    return {
        "returned": returned,
        "history": history(cluster),
        "left": left_of(cluster) + [unproven] * bool(unproven),
    }


def lose_an_executor(spark: Any, folder: Path, anchor: str) -> dict[str, Any]:
    """In the application: the JVM above a member is killed."""
    with begin(spark, wait_at_the_gate, folder, anchor=anchor) as cluster:
        executor_of(cluster, "worker:1").kill()
        return outcome_of(cluster, folder, 2)


def test_a_member_whose_executor_is_killed_comes_back_on_another(
    local: Application, tmp_path: Path
) -> None:
    """O3: members of one executor may all be on it, so that any of them may be blamed."""
    outcome = local.call(lose_an_executor, tmp_path, "task")
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    ((member, cause, generation),) = outcome["history"]
    assert (cause, generation) == (PREEMPTED, 1)
    assert member in ("worker:0", "worker:1")
    assert outcome["left"] == []


def lose_a_process_after_the_task(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: a process is killed that no Spark task holds any more."""
    with begin(spark, wait_at_the_gate, folder, anchor="executor") as cluster:
        process_of(cluster, "worker:0").kill()
        wait_for_generation(cluster, 2)
        run = cluster.status()
        (folder / GATE).touch()
        cluster.wait(60)
        cluster.shutdown()
        return {
            "history": history(cluster),
            "generation": run.generation,
            "left": left_of(cluster),
        }


def test_a_member_whose_task_has_ended_comes_back_by_a_new_job(
    local: Application, tmp_path: Path
) -> None:
    outcome = local.call(lose_a_process_after_the_task, tmp_path)
    killed = Cause.KILLED_BY_SIGNAL.value
    assert outcome == {"history": [("worker:0", killed, 1)], "generation": 2, "left": []}


def eat_in_one(args: Any, ctx: Any) -> int:
    """Worker 0 of the first generation takes all the memory that it can get, up to a bound that
    spares the machine."""
    if ctx.task_index == 0 and ctx.generation == 1:
        eaten = [bytearray(b"x" * 2**24) for _ in range(256)]
        raise AssertionError(f"nobody stopped it at {len(eaten)} times 16 MiB")
    return wait_at_the_gate(args, ctx)


def lose_one_to_memory(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: its executors share a memory cgroup with little room."""
    spark.sparkContext.parallelize(range(4), 4).map(lambda each: each).count()  # starts daemons
    below = psutil.Process().children(recursive=True)
    names = ("CoarseGrainedExecutorBackend", "pyspark.daemon")
    pids = [each.pid for each in below if any(name in command(each) for name in names)]
    with (
        memory.narrow(folder.name, pids, 2**30),
        begin(spark, eat_in_one, folder) as cluster,
    ):
        return outcome_of(cluster, folder, 2)


@pytest.mark.skipif(bool(memory.obstacle()), reason=memory.obstacle() or "it can be done here")
def test_a_member_that_the_kernel_kills_for_its_memory_is_restarted(
    local: Application, tmp_path: Path
) -> None:
    """E1"""
    outcome = local.call(lose_one_to_memory, tmp_path)
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert outcome["history"] == [("worker:0", Cause.OUT_OF_MEMORY.value, 1)]
    assert outcome["left"] == []


def lose_a_speculated_member(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: the process is killed when Spark has started its task a second time."""
    with begin(spark, wait_at_the_gate, folder, Roles(worker=1)) as cluster:
        tracker = spark.sparkContext.statusTracker()

        def active() -> int:
            stages = (tracker.getStageInfo(each) for each in tracker.getActiveStageIds())
            return sum(each.numActiveTasks for each in stages if each is not None)

        eventually(lambda: active() > 1, "Spark to start the task once more")
        process_of(cluster, "worker:0").kill()
        return outcome_of(cluster, folder, 2)


def test_where_spark_speculates_one_of_the_attempts_takes_the_slot_again(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """R4: the other one goes on standing by."""
    with application(cluster.url, {**CONF, **ONE_EACH, **SPECULATION}, executors=2) as driver:
        outcome = driver.call(lose_a_speculated_member, tmp_path)
    assert outcome["returned"] == {"worker:0": 2}
    assert outcome["history"] == [("worker:0", Cause.KILLED_BY_SIGNAL.value, 1)]
    assert outcome["left"] == []


def lose_a_host(
    spark: Any, folder: Path, daemons: dict[str, int], *, whole: bool
) -> dict[str, Any]:
    """In the application: Spark's worker and its executors are killed at once; ``whole``: with
    everything below them, as when the machine is switched off."""
    with suppress(ReleaseUnproven), begin(spark, wait_at_the_gate, folder) as cluster:
        worker = psutil.Process(daemons[executor_host(process_of(cluster, "worker:1").pid)])
        doomed = [worker, *worker.children(recursive=True)]
        if not whole:
            doomed = [each for each in doomed if "java" in command(each).split(" ")[0]]
        for each in doomed:  # nobody sees another die
            each.suspend()
        for each in doomed:
            each.kill()
        outcome = outcome_of(cluster, folder, 2)
    return outcome


def test_members_of_a_lost_spark_worker_come_back_on_the_other_one(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """O3: what it had started ends with it, and is proven gone: no fence is waited for."""
    with application(cluster.url, {**CONF, **ONE_EACH}, executors=2) as driver:
        outcome = driver.call(_lose_a_spark_worker, tmp_path, pids_of(cluster))
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert [(cause, generation) for _, cause, generation in outcome["history"]] == [(PREEMPTED, 1)]
    assert outcome["left"] == []


def pids_of(cluster: StandaloneCluster) -> dict[str, int]:
    """Those of the Spark workers, by address."""
    return {host: worker.pid for host, worker in cluster.workers.items()}


def _lose_a_spark_worker(spark: Any, folder: Path, daemons: dict[str, int]) -> dict[str, Any]:
    return lose_a_host(spark, folder, daemons, whole=False)


def _lose_a_machine(spark: Any, folder: Path, daemons: dict[str, int]) -> dict[str, Any]:
    return lose_a_host(spark, folder, daemons, whole=True)


@pytest.mark.timeout(420)  # the fence alone is 140 s
def test_members_of_a_machine_that_is_switched_off_come_back_after_the_fence(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """O3: nobody is left to prove anything, so that it takes silence and fence; and what could not
    be proven is said at the end, though the run went well."""
    with application(cluster.url, {**CONF, **ONE_EACH}, executors=2) as driver:
        outcome = driver.start(_lose_a_machine, tmp_path, pids_of(cluster)).result(320)
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    ((member, cause, generation),) = outcome["history"]
    assert (cause, generation) == (Cause.LOST_CONTACT.value, 1)
    (unproven,) = outcome["left"]
    assert member in unproven
    assert "its agent is not heard of any more" in unproven
