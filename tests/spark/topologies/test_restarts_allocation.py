"""Runs that go on while executors come and go: under dynamic allocation, and when Spark
decommissions them. On a cluster of two hosts."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import TFCluster
from coordinator.core.model import Cause, RunPhase
from tests.conftest import LongLived
from tests.spark.application import Application, application, executors_of
from tests.spark.helpers import eventually
from tests.spark.standalone import StandaloneCluster, standalone_cluster
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    executor_of,
    history,
    left_of,
    process_of,
    spark_worker_of,
    wait_at_the_gate,
    wait_for_generation,
)
from tests.spark.topologies.scenario import executor_host

pytestmark = pytest.mark.timeout(300)

HOSTS = ("127.0.0.1", "127.0.0.2")

SMALL = {
    "spark.executor.memory": "512m",
    "spark.deploy.maxExecutorRetries": "-1",
    # Whoever loses a task gets no other one from Spark: only another job brings him back.
    "spark.task.maxFailures": "1",
}

COMING_AND_GOING = {
    "spark.executor.cores": "1",
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "0",
    "spark.dynamicAllocation.maxExecutors": "3",
    "spark.dynamicAllocation.executorIdleTimeout": "1s",
}

DECOMMISSION = {
    "spark.executor.cores": "2",
    "spark.cores.max": "4",
    "spark.decommission.enabled": "true",
}
"""An executor of two slots on each host. One that is decommissioned waits for its tasks to end."""

PATIENCE = {"spark.executor.decommission.forceKillTimeout": "2s"}
"""For so long; members do not end by themselves."""

PREEMPTED = Cause.PREEMPTED.value
KILLED = Cause.KILLED_BY_SIGNAL.value


@contextmanager
def two_hosts(folder: Path, long_lived: LongLived) -> Iterator[StandaloneCluster]:
    with standalone_cluster(folder / "cluster", HOSTS, cores=4) as cluster:
        for pid in cluster.pids:
            long_lived.allow_tree(pid)
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, long_lived: LongLived
) -> Iterator[StandaloneCluster]:
    with two_hosts(tmp_path_factory.mktemp("standalone"), long_lived) as cluster:
        yield cluster


def outcome_of(cluster: TFCluster, folder: Path, generation: int = 2) -> dict[str, Any]:
    """After the end, which this brings about."""
    wait_for_generation(cluster, generation)
    (folder / GATE).touch()
    returned = dict(cluster.wait(60).returned)
    cluster.shutdown()
    causes = {each.exit.cause for each in cluster.status().members if each.exit is not None}
    return {
        "returned": returned,
        "causes": causes,
        "history": history(cluster),
        "left": left_of(cluster),
    }


# -- dynamic allocation ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elastic(cluster: StandaloneCluster, long_lived: LongLived) -> Iterator[Application]:
    """It begins without an executor; each takes one member."""
    with application(cluster.url, {**SMALL, **COMING_AND_GOING}) as driver:
        long_lived.allow_tree(driver.pid)
        yield driver


def lose_an_executor(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: the JVM above a member is killed."""
    with begin(spark, wait_at_the_gate, folder) as cluster:
        before = places_of(cluster)
        executor_of(cluster, "worker:1").kill()
        wait_for_generation(cluster, 2)
        after = places_of(cluster)
        return {**outcome_of(cluster, folder), "before": before, "after": after}


def places_of(cluster: TFCluster) -> dict[str, str]:
    """By member the id of its executor."""
    found = {str(each.id): each.executor for each in cluster.status().members}
    return {member: str(where.executor_id) for member, where in found.items() if where is not None}


def test_with_dynamic_allocation_a_new_executor_comes_for_a_member_that_lost_its_own(
    elastic: Application, tmp_path: Path
) -> None:
    """O3, R12: the other member stays where it was."""
    outcome = elastic.call(lose_an_executor, tmp_path)
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert outcome["history"] == [("worker:1", PREEMPTED, 1)]
    assert outcome["after"]["worker:0"] == outcome["before"]["worker:0"]
    assert outcome["after"]["worker:1"] not in outcome["before"].values()
    assert outcome["left"] == []


def take_your_time(args: Any, ctx: Any) -> int:
    """Worker 0 of the first generation ends when it may, not when it is told to."""
    generation = wait_at_the_gate(args, ctx)
    while ctx.generation == 1 and ctx.task_index == 0 and not Path(args["folder"], "end").exists():
        time.sleep(0.02)
    return generation


def lose_an_idle_executor(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: a member's task is lost, and nobody uses its executor while the other
    member is stopped."""
    with begin(spark, take_your_time, folder, grace={"worker": 60.0}) as cluster:
        before = places_of(cluster)
        spark_worker_of(cluster, "worker:1").kill()
        eventually(lambda: cluster.status().phase is RunPhase.RESTARTING, "the restart to begin")
        eventually(lambda: executors_of(spark) == 1, "the idle executor to be removed")
        during = cluster.status().phase
        (folder / "end").touch()
        wait_for_generation(cluster, 2)
        after = places_of(cluster)
        return {**outcome_of(cluster, folder), "before": before, "after": after, "during": during}


def test_an_executor_that_is_removed_between_generations_is_replaced(
    elastic: Application, tmp_path: Path
) -> None:
    """R12: it is idle for longer than Spark keeps one, because a restart takes its time."""
    outcome = elastic.call(lose_an_idle_executor, tmp_path)
    assert outcome["during"] is RunPhase.RESTARTING
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert outcome["history"] == [("worker:1", PREEMPTED, 1)]
    assert outcome["after"]["worker:0"] == outcome["before"]["worker:0"]
    assert outcome["after"]["worker:1"] not in outcome["before"].values()
    assert outcome["left"] == []


# -- decommissioning -------------------------------------------------------------------------------


def decommission(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: the executor of worker 1 is decommissioned, and killed after a while."""
    with begin(spark, wait_at_the_gate, folder) as cluster:
        lost = places_of(cluster)["worker:1"]
        executor_of(cluster, "worker:1").send_signal(signal.SIGPWR)
        wait_for_generation(cluster, 2)
        after = places_of(cluster)
        return {**outcome_of(cluster, folder), "lost": lost, "after": after}


def test_members_of_an_executor_that_is_decommissioned_and_killed_come_back_elsewhere(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """O3: members of one executor may all be on it, so that any of them may be blamed."""
    with application(cluster.url, {**SMALL, **DECOMMISSION, **PATIENCE}, executors=2) as driver:
        outcome = driver.call(decommission, tmp_path)
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert [(cause, generation) for _, cause, generation in outcome["history"]] == [(PREEMPTED, 1)]
    assert outcome["lost"] not in outcome["after"].values()
    assert outcome["left"] == []


def decommission_and_fail(spark: Any, folder: Path, daemons: dict[str, int]) -> dict[str, Any]:
    """In the application: the executor of worker 1, or, with ``daemons``, all of its host, is
    decommissioned. Later the member's process is killed, and later still its Spark task."""
    with begin(spark, wait_at_the_gate, folder) as cluster:
        places = [places_of(cluster)]
        executor = executor_of(cluster, "worker:1")
        pid = daemons[executor_host(process_of(cluster, "worker:1").pid)] if daemons else 0
        (psutil.Process(pid) if pid else executor).send_signal(signal.SIGPWR)
        eventually(lambda: is_decommissioned(spark, places[0]["worker:1"]), "Spark to know of it")
        during = cluster.status()
        for generation, find in ((2, process_of), (3, spark_worker_of)):
            find(cluster, "worker:1").kill()
            wait_for_generation(cluster, generation)
            places.append(places_of(cluster))
        found = outcome_of(cluster, folder, 3)
        eventually(lambda: not executor.is_running(), "the decommissioned executor to end")
        return {**found, "places": places, "during": (during.phase, during.generation)}


def is_decommissioned(spark: Any, executor: str) -> bool:
    """Whether Spark gives it no tasks any more."""
    scheduler = spark.sparkContext._jsc.sc().taskScheduler()
    return bool(scheduler.getExecutorDecommissionState(executor).isDefined())


def judge(outcome: dict[str, Any]) -> None:
    assert outcome["during"] == (RunPhase.RUNNING, 1)
    assert outcome["causes"] == {Cause.COMPLETED}
    # What a decommissioned executor's last task returns, Spark may lose with the executor.
    assert outcome["returned"] in ({"worker:0": 3, "worker:1": 3}, {"worker:1": 3})
    assert outcome["history"] == [("worker:1", KILLED, 1), ("worker:1", PREEMPTED, 2)]
    first, second, third = (places["worker:1"] for places in outcome["places"])
    assert first == second != third
    assert outcome["left"] == []


def test_a_member_of_a_decommissioned_executor_goes_on_and_loses_only_its_task_to_another_one(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """O3: as long as Spark lets its task go on, its process may also start again there."""
    with application(cluster.url, {**SMALL, **DECOMMISSION}, executors=2) as driver:
        judge(driver.call(decommission_and_fail, tmp_path, {}))


def test_so_does_one_whose_host_is_decommissioned(
    tmp_path_factory: pytest.TempPathFactory,
    long_lived: LongLived,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """O3: Spark's worker is told, and tells its executors."""
    # Spark's own daemons take their configuration from files, or from this.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dspark.decommission.enabled=true")
    with two_hosts(tmp_path_factory.mktemp("standalone"), long_lived) as cluster:
        monkeypatch.delenv("JAVA_TOOL_OPTIONS")
        daemons = {host: worker.pid for host, worker in cluster.workers.items()}
        with application(cluster.url, {**SMALL, **DECOMMISSION}, executors=2) as driver:
            judge(driver.call(decommission_and_fail, tmp_path, daemons))
