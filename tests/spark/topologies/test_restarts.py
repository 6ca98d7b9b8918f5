"""Runs that go on after a failure, on the shared cluster and without TensorFlow: who is killed, and
when, who is blamed, and what a restart does not answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import (
    CoordinatorUnavailable,
    ReleaseUnproven,
    RestartPolicy,
    Roles,
    StallTimeouts,
    TFCluster,
    TrainingFailed,
)
from coordinator.core.model import Cause, MemberPhase, RunPhase, RunView
from tests.spark.helpers import command, eventually, marked, wait_until_gone
from tests.spark.topologies.restarting import (
    GATE,
    THREE,
    begin,
    history,
    left_of,
    process_of,
    spark_worker_of,
    wait_at_the_gate,
    wait_for_generation,
)

pytestmark = pytest.mark.timeout(180)

KILLED = Cause.KILLED_BY_SIGNAL.value


def finish(cluster: TFCluster, folder: Path, generation: int) -> None:
    """All of them return, and say that they are of this generation."""
    (folder / GATE).touch()
    result = cluster.wait(60)
    assert set(result.returned.values()) == {generation}
    assert len(result.returned) == len(cluster.status().members)
    assert result.generations == generation
    assert result.restarts == cluster.status().restarts


def test_the_same_member_is_killed_three_times_and_the_run_ends_well(
    spark: Any, tmp_path: Path
) -> None:
    """E2: each restart blames the one that was killed, and none of those it was stopped for."""
    with begin(spark, wait_at_the_gate, tmp_path, Roles(worker=3)) as cluster:
        for generation in (1, 2, 3):
            wait_for_generation(cluster, generation)
            process_of(cluster, "worker:1").kill()
        wait_for_generation(cluster, 4)
        finish(cluster, tmp_path, 4)
    assert history(cluster) == [("worker:1", KILLED, each) for each in (1, 2, 3)]
    assert left_of(cluster) == []


def test_a_member_that_loses_its_spark_task_is_replaced(spark: Any, tmp_path: Path) -> None:
    """O1: by Spark's own retry or by another job, whichever comes first."""
    with begin(spark, wait_at_the_gate, tmp_path) as cluster:
        spark_worker_of(cluster, "worker:0").kill()
        wait_for_generation(cluster, 2)
        finish(cluster, tmp_path, 2)
    assert history(cluster) == [("worker:0", Cause.PREEMPTED.value, 1)]
    assert left_of(cluster) == []


def linger(args: Any, ctx: Any) -> int:
    """In its first generation it takes all the time that it has when it is told to stop."""
    result = wait_at_the_gate(args, ctx)
    if ctx.should_stop and ctx.generation == 1:
        time.sleep(1000)
    return result


def test_a_member_that_is_killed_during_a_restart_costs_no_other_one(
    spark: Any, tmp_path: Path
) -> None:
    """E2: the first cause stays the first."""
    with begin(spark, linger, tmp_path, Roles(worker=3), grace={"worker": 4.0}) as cluster:
        second = process_of(cluster, "worker:2")
        process_of(cluster, "worker:0").kill()
        eventually(lambda: cluster.status().phase is RunPhase.RESTARTING, "the restart to begin")
        second.kill()
        wait_for_generation(cluster, 2)
        finish(cluster, tmp_path, 2)
    assert history(cluster) == [("worker:0", KILLED, 1)]
    assert left_of(cluster) == []


def test_a_member_that_is_killed_while_the_gang_forms_is_replaced_alone(
    spark: Any, tmp_path: Path
) -> None:
    """R3: the others wait, in the same generation; it costs a restart."""
    module = tmp_path / f"held_{tmp_path.parent.name.replace('-', '_')}.py"
    gate = tmp_path / "may-get-ready"
    module.write_text(
        "import os, time\n"
        "while '/worker:1/' in os.environ['TFLEASE_MEMBER'] and "
        f"not os.path.exists({str(gate)!r}):\n"
        "    time.sleep(0.02)\n"
    )
    spark.sparkContext.addPyFile(str(module))
    pictures: list[RunView] = []

    def ready() -> str:
        member = pictures[-1].members[0] if pictures else None
        found = member is not None and member.phase is MemberPhase.READY
        return str(member.incarnation) if found and member is not None else ""

    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(
            begin,
            spark,
            wait_at_the_gate,
            tmp_path,
            preload=(module.stem,),
            progress=pictures.append,
        )
        first = eventually(ready, "worker:0 to be ready")
        run_id = str(pictures[-1].run_id)
        (process,) = (
            each
            for each in marked(run_id, f"worker:0/{first}")
            if "executor_agent.bootstrap" in command(each)
        )
        process.kill()
        eventually(lambda: ready() not in ("", first), "another incarnation to be ready")
        gate.touch()
        with starting.result(60) as cluster:
            finish(cluster, tmp_path, 1)
    assert cluster.status().restart_count == 1
    assert cluster.status().restarts[0].alone
    assert left_of(cluster) == []


def fail_in_one(args: Any, ctx: Any) -> int:
    """Worker 2 of the first generation raises, as soon as it may."""
    if ctx.task_index == 2 and ctx.generation == 1:
        while not Path(args["folder"], "fail").exists():
            time.sleep(0.02)
        raise ValueError("bad labels")
    return wait_at_the_gate(args, ctx)


def test_an_exception_of_the_user_s_in_one_of_four_ends_the_run_at_once(
    spark: Any, tmp_path: Path
) -> None:
    """E2: it would only come again."""
    with begin(spark, fail_in_one, tmp_path, Roles(worker=4)) as cluster:
        (tmp_path / "fail").touch()
        with pytest.raises(TrainingFailed, match="bad labels") as caught:
            cluster.wait(60)
        assert cluster.status().restarts == ()
    assert caught.value.failure is not None
    assert caught.value.failure.cause is Cause.USER_EXCEPTION
    assert str(caught.value.failure.member) == "worker:2"
    assert left_of(cluster) == []


def test_the_policy_may_say_that_exceptions_are_worth_another_try(
    spark: Any, tmp_path: Path
) -> None:
    policy = RestartPolicy(max_restarts=1, on={"user exception": "restart"})
    with begin(spark, fail_in_one, tmp_path, Roles(worker=4), restart=policy) as cluster:
        (tmp_path / "fail").touch()
        wait_for_generation(cluster, 2)
        finish(cluster, tmp_path, 2)
    assert history(cluster) == [("worker:2", Cause.USER_EXCEPTION.value, 1)]
    assert "bad labels" in cluster.status().restarts[0].summary


def sleep_in_one(args: Any, ctx: Any) -> int:
    """Worker 1 hangs after two steps of the first generation; worker 0 goes on."""

    def read_from_a_dead_disk() -> None:
        time.sleep(1000)

    step = 0
    while not Path(args["folder"], GATE).exists() and not ctx.should_stop:
        step += 1
        ctx.report_progress(step)
        if step > 2 and ctx.task_index == 1 and ctx.generation == 1:
            read_from_a_dead_disk()
        time.sleep(0.1)
    return int(ctx.generation)


def test_who_hangs_is_found_named_with_its_place_and_restarted(spark: Any, tmp_path: Path) -> None:
    """E5"""
    options: dict[str, Any] = {"stall_timeouts": StallTimeouts(step=3.0)}
    with begin(spark, sleep_in_one, tmp_path, **options) as cluster:
        wait_for_generation(cluster, 2)
        finish(cluster, tmp_path, 2)
    assert history(cluster) == [("worker:1", Cause.STALLED.value, 1)]
    summary = cluster.status().restarts[0].summary
    assert "worker:1" in summary
    assert "read_from_a_dead_disk" in summary
    assert left_of(cluster) == []


def test_a_member_that_is_killed_while_the_run_ends_is_no_reason_to_begin_again(
    spark: Any, tmp_path: Path
) -> None:
    """The chief has returned, so the run is complete; the parameter server takes its time."""
    roles = Roles(chief=1, ps=1)
    with begin(spark, _return_or_linger, tmp_path, roles, grace={"ps": 30.0}) as cluster:
        server = process_of(cluster, "ps:0")
        (tmp_path / GATE).touch()
        eventually(lambda: cluster.status().phase is RunPhase.STOPPING, "the end to begin")
        server.kill()
        assert cluster.wait(60)["chief:0"] == 1
    assert cluster.status().restarts == ()
    assert left_of(cluster) == []


def _return_or_linger(args: Any, ctx: Any) -> int:
    if ctx.job_name == "ps":
        ctx.wait_for_stop()
        time.sleep(1000)
    return wait_at_the_gate(args, ctx)


def test_a_run_whose_coordinator_dies_during_a_restart_fails_at_once_and_leaves_nothing(
    spark: Any, tmp_path: Path
) -> None:
    """O13: it is embedded, and nobody else knows the run. Nor can anybody prove its end."""
    before = set(_coordinators())
    cluster = begin(spark, linger, tmp_path, grace={"worker": 5.0})
    try:
        (coordinator,) = set(_coordinators()) - before
        processes = marked(cluster.run_id)
        process_of(cluster, "worker:0").kill()
        eventually(lambda: cluster.status().phase is RunPhase.RESTARTING, "the restart to begin")
        coordinator.kill()
        with pytest.raises(CoordinatorUnavailable):
            cluster.wait(60)
    finally:
        with pytest.raises(ReleaseUnproven, match="worker:1"):
            cluster.shutdown()
    wait_until_gone([*processes, *marked(cluster.run_id)], "survived the run")
    with begin(spark, wait_at_the_gate, tmp_path, restart=THREE) as another:
        finish(another, tmp_path, 1)


def _coordinators() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "coordinator.embedded" in command(each)]
