"""A failure that may not come again is answered with a restart, on real executors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import RestartPolicy, Roles, RunCancelled, TFCluster, TrainingFailed
from coordinator.core.model import Cause, RunPhase
from tests.spark.helpers import (
    eventually,
    marked,
    member_process_of,
    wait_for_file,
    wait_until_gone,
)

OPTIONS: dict[str, Any] = {
    "roles": Roles(worker=2),
    "preload": (),
    "progress": False,
    "reservation_timeout": 120.0,
    "grace": {"worker": 0.0},
}


def until_open(args: Any, ctx: Any) -> Any:
    """Waits for a file; in which generation it did."""
    folder, gate = args
    Path(folder, f"{ctx.task_index}-{ctx.generation}").touch()
    while not os.path.exists(gate) and not ctx.should_stop:
        ctx.wait_for_stop(0.05)
    return ctx.generation


def test_a_killed_member_starts_again_and_all_others_with_it(
    spark: Any, gate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = RestartPolicy(max_restarts=2)
    with (
        caplog.at_level(logging.WARNING, "tflease"),
        TFCluster.run(
            spark, until_open, (str(tmp_path), str(gate)), restart=policy, **OPTIONS
        ) as cluster,
    ):
        first = marked(cluster.run_id)
        member_process_of(cluster.run_id, "worker:1").kill()
        for index in range(2):
            wait_for_file(tmp_path / f"{index}-2")
        eventually(lambda: cluster.status().phase is RunPhase.RUNNING, "the second generation")
        assert cluster.status().restart_count == 1
        gate.touch()
        result = cluster.wait(60)
    assert result.returned == {"worker:0": 2, "worker:1": 2}
    (restart,) = result.restarts
    assert result.generations == 2
    assert cluster.status().restarts == result.restarts
    assert (restart.cause, str(restart.member)) == (Cause.KILLED_BY_SIGNAL, "worker:1")
    assert any("restart 1 (generation 1, step 0): worker:1" in text for text in caplog.messages)
    wait_until_gone(first, "survived the restart")


def test_an_exception_of_the_program_would_only_come_again(spark: Any) -> None:
    def fail(args: Any, ctx: Any) -> None:
        raise ValueError("the labels are upside down")

    with (
        pytest.raises(TrainingFailed, match="upside down") as caught,
        TFCluster.run(spark, fail, restart=RestartPolicy(max_restarts=2), **OPTIONS) as cluster,
    ):
        cluster.wait(60)
    assert "Restarts before" not in str(caught.value)


def test_a_run_that_gets_nowhere_ends_with_the_whole_story(spark: Any) -> None:
    def die(args: Any, ctx: Any) -> None:
        os.kill(os.getpid(), 9)

    policy = RestartPolicy(max_restarts=2, backoff=0.0)
    options = {**OPTIONS, "roles": Roles(worker=1)}
    with (
        pytest.raises(TrainingFailed) as caught,
        TFCluster.run(spark, die, restart=policy, **options) as cluster,
    ):
        cluster.wait(60)
    story = str(caught.value)
    assert "(after 2 restarts, 2 in a row without a new step or checkpoint)" in story
    assert "restart 1 (generation 1, step 0): worker:0" in story
    assert "restart 2 (generation 2, step 0): worker:0" in story


@pytest.fixture
def cell(spark: Any) -> Iterator[str]:
    """The tag of all jobs that this thread submits, as a notebook's cell has one."""
    spark.sparkContext.addJobTag("cell")
    yield "cell"
    spark.sparkContext.removeJobTag("cell")


def test_without_a_task_a_member_comes_back_in_a_new_job_of_the_same_cell(
    spark: Any, gate: Path, tmp_path: Path, cell: str
) -> None:
    """Its task has ended when the gang was formed."""
    options = {**OPTIONS, "roles": Roles(worker=1), "anchor": "executor"}
    policy = RestartPolicy(max_restarts=2)
    arguments = str(tmp_path), str(gate)
    with TFCluster.run(spark, until_open, arguments, restart=policy, **options) as cluster:
        member_process_of(cluster.run_id, "worker:0").kill()
        wait_for_file(tmp_path / "0-2")
        gate.touch()
        assert cluster.wait(60).generations == 2
    assert len(spark.sparkContext._jsc.sc().statusTracker().getJobIdsForTag(cell)) == 2


def test_cancelling_the_cell_ends_a_run_that_would_go_on_after_anything_else(
    spark: Any, gate: Path, tmp_path: Path, cell: str
) -> None:
    """O1: also when the member is in its second generation by then."""
    options = {**OPTIONS, "roles": Roles(worker=1)}
    policy = RestartPolicy(max_restarts=5)
    arguments = str(tmp_path), str(gate)
    with TFCluster.run(spark, until_open, arguments, restart=policy, **options) as cluster:
        member_process_of(cluster.run_id, "worker:0").kill()
        wait_for_file(tmp_path / "0-2")
        processes = marked(cluster.run_id)
        spark.sparkContext.cancelJobsWithTag(cell)
        with pytest.raises(RunCancelled, match="the Spark job of worker:0 was cancelled"):
            cluster.wait(60)
    assert cluster.status().restart_count == 1
    wait_until_gone(processes, "survived the cancelled cell")
