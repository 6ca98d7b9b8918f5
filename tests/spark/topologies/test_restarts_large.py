"""Runs of which several members share a Spark job: whose process dies, whose task, and whose job
Spark gives up, with everybody else's task in it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coordinator import RestartPolicy, Roles, TFCluster
from coordinator.core import roster
from coordinator.core.model import Cause
from executor_agent.spark_task import submission_of
from tests.conftest import LongLived
from tests.spark.application import Application, application
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    history,
    left_of,
    process_of,
    spark_worker_of,
    wait_at_the_gate,
    wait_for_generation,
)

MEMBERS = roster.MAX_JOBS + 1
"""The first two share a job; the others have one each."""

CORES = MEMBERS // 2 + 1
"""Of each of two executors: a slot is left over, in which a lost task may be tried again while the
old one is still on its way out."""

PATIENCE = 200.0
"""Seconds for all members to start, on a machine that has two cores for them. It only bounds a test
that fails."""

KILLED, PREEMPTED = Cause.KILLED_BY_SIGNAL.value, Cause.PREEMPTED.value

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wide(long_lived: LongLived) -> Iterator[Application]:
    """Two executors with a slot for every member and for one more."""
    conf = {"spark.executor.memory": "512m"}
    with application(f"local-cluster[2,{CORES},1024]", conf, executors=2) as driver:
        long_lived.allow_tree(driver.pid)
        yield driver


def sit_alone(args: Any, ctx: Any) -> int:
    """Holds a lock of its slot as long as its process lives: two at a time fail the run."""
    name = f"{ctx.job_name}-{ctx.task_index}"
    with Path(args["folder"], name).open("a") as slot:
        fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        slot.write(f"{ctx.generation}\n")
        slot.flush()
        return wait_at_the_gate(args, ctx)


def entered(folder: Path) -> dict[str, list[int]]:
    """By slot: the generations in which somebody has entered ``main_fun`` there."""
    return {each.name: [*map(int, each.read_text().split())] for each in folder.glob("worker-*")}


def outcome_of(cluster: TFCluster, folder: Path, generation: int) -> dict[str, Any]:
    """After the end, which this brings about."""
    wait_for_generation(cluster, generation, PATIENCE)
    (folder / GATE).touch()
    returned = dict(cluster.wait(PATIENCE).returned)
    cluster.shutdown()
    return {
        "returned": returned,
        "history": history(cluster),
        "entered": entered(folder),
        "left": left_of(cluster),
    }


def expect_all(outcome: dict[str, Any], members: int, generations: int) -> None:
    """Each slot was taken once in each generation, and the last one ended well."""
    assert outcome["returned"] == {f"worker:{each}": generations for each in range(members)}
    every = list(range(1, generations + 1))
    assert outcome["entered"] == {f"worker-{each}": every for each in range(members)}
    assert outcome["left"] == []


def tasks_of(cluster: TFCluster) -> list[int]:
    """The pids of Spark's Python workers above the first two members, which share a job."""
    return [spark_worker_of(cluster, name).pid for name in ("worker:0", "worker:1")]


def lose_a_process_and_a_task(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: both are of worker 1, which shares its job with worker 0."""
    roles = Roles(worker=MEMBERS)
    assert len(roster.jobs(roles)[0]) == 2
    with begin(spark, sit_alone, folder, roles, reservation_timeout=PATIENCE) as cluster:
        wait_for_generation(cluster, 1, PATIENCE)
        tasks = tasks_of(cluster)
        process_of(cluster, "worker:1").kill()
        wait_for_generation(cluster, 2, PATIENCE)
        assert tasks_of(cluster) == tasks, "it was not started again in place"
        spark_worker_of(cluster, "worker:1").kill()
        return outcome_of(cluster, folder, 3)


def test_more_members_than_jobs_lose_a_process_and_then_a_task(
    wide: Application, tmp_path: Path
) -> None:
    """R3, O1: in place at first; then by Spark's own retry in the shared job, or by a new job."""
    outcome = wide.start(lose_a_process_and_a_task, tmp_path).result(3 * PATIENCE)
    assert outcome["history"] == [("worker:1", KILLED, 1), ("worker:1", PREEMPTED, 2)]
    expect_all(outcome, MEMBERS, 3)


def in_their_first_job(cluster: TFCluster) -> set[str]:
    """Members that sit in a task of the job that was submitted at the beginning."""
    members = cluster.status().members
    found = {str(each.id): str(each.incarnation) for each in members if each.incarnation}
    return {name for name, incarnation in found.items() if submission_of(incarnation) == 0}


def wear_a_job_out(spark: Any, folder: Path) -> dict[str, Any]:
    """In the application: all members share one job, which Spark gives up after four failures of
    a task, the tasks of the others with it."""
    policy = RestartPolicy(max_restarts=10, backoff=0.05)
    together = partial(roster.jobs, max_jobs=1)
    with (
        mock.patch.object(roster, "jobs", together),
        begin(spark, sit_alone, folder, Roles(worker=3), restart=policy) as cluster,
    ):
        tasks = tasks_of(cluster)
        process_of(cluster, "worker:1").kill()
        generation = 2
        wait_for_generation(cluster, generation)
        assert tasks_of(cluster) == tasks, "it was not started again in place"
        while in_their_first_job(cluster):
            spark_worker_of(cluster, "worker:1").kill()
            generation += 1
            wait_for_generation(cluster, generation)
        return outcome_of(cluster, folder, generation)


def test_members_whose_common_job_spark_gives_up_come_back_by_jobs_of_their_own(
    wide: Application, tmp_path: Path
) -> None:
    """O1: some of them perhaps when the next generation forms already, which costs no other one."""
    outcome = wide.start(wear_a_job_out, tmp_path).result(PATIENCE)
    generations = outcome["returned"]["worker:0"]
    assert generations > 5, "Spark gives a job up after four failures"
    killed, *preempted = outcome["history"]
    assert killed == ("worker:1", KILLED, 1)
    assert {cause for _, cause, _ in preempted} == {PREEMPTED}
    blamed = {generation for member, _, generation in preempted if member == "worker:1"}
    assert blamed >= set(range(2, generations))
    expect_all(outcome, 3, generations)
