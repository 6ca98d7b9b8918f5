"""Trainings that go on after a failure, with real TensorFlow: to a model that is as good."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coordinator import Roles, StallTimeouts, TFCluster
from coordinator.core.model import Cause
from examples.digits_data import evaluate_saved_model
from examples.digits_fit import fit_or_evaluate
from examples.digits_run import REQUIRED_ACCURACY, ship_examples
from examples.digits_sync import train_in_step
from examples.digits_training import train_digits
from tests.spark.helpers import eventually
from tests.spark.topologies.restarting import (
    THREE,
    begin,
    history,
    left_of,
    process_of,
    wait_for_generation,
    wait_for_step,
)

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(400)]

KILLED = Cause.KILLED_BY_SIGNAL.value
TENSORFLOW: dict[str, Any] = {"preload": ("tensorflow",), "reservation_timeout": 200.0}


@pytest.fixture(scope="module", autouse=True)
def shipped(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Not one test's own folder: executors may fetch the archive as long as the session lives.
    ship_examples(spark, str(tmp_path_factory.mktemp("shipped")))


def begin_digits(
    spark: Any, main_fun: Any, roles: Roles, steps: int, folder: Path, **options: Any
) -> TFCluster:
    return TFCluster.run(
        spark,
        main_fun,
        {"steps": steps},
        roles=roles,
        model_dir=str(folder / "model"),
        progress=False,
        restart=THREE,
        **TENSORFLOW | options,
    )


def test_synchronous_workers_of_which_one_is_killed_learn_as_much(
    spark: Any, tmp_path: Path
) -> None:
    """No step is lost but those since the last checkpoint."""
    with begin_digits(spark, train_in_step, Roles(worker=2), 3000, tmp_path) as cluster:
        wait_for_step(cluster, 300)
        process_of(cluster, "worker:1").kill()
        result = cluster.wait(200)
    assert history(cluster) == [("worker:1", KILLED, 1)]
    assert result.generations == 2
    assert cluster.status().restarts[0].step >= 300
    told = list(result.returned.values())
    assert [each["steps"] for each in told] == [3000, 3000]
    assert [each["began_at"] >= 200 for each in told] == [True, True]
    assert told[0]["weights"] == told[1]["weights"]
    assert evaluate_saved_model("keras", tmp_path / "model") >= REQUIRED_ACCURACY
    assert left_of(cluster) == []


def test_a_parameter_server_that_is_killed_comes_back_with_what_was_learnt(
    spark: Any, tmp_path: Path
) -> None:
    """Its variables were in its memory: the gang starts again from the checkpoint."""
    roles = Roles(chief=1, worker=2, ps=1)
    with begin_digits(spark, train_digits, roles, 3000, tmp_path) as cluster:
        wait_for_step(cluster, 500)
        process_of(cluster, "ps:0").kill()
        result = cluster.wait(200)
    assert history(cluster) == [("ps:0", KILLED, 1)]
    assert result["chief:0"]["began_at"] >= 200
    assert evaluate_saved_model("keras", tmp_path / "model") >= REQUIRED_ACCURACY
    assert left_of(cluster) == []


def test_a_worker_of_parameter_servers_is_restarted_alone_and_its_work_goes_on(
    spark: Any, tmp_path: Path
) -> None:
    """The chief's program does not notice: the same generation goes on."""
    roles = Roles(chief=1, worker=2, ps=1)
    with begin_digits(spark, train_digits, roles, 6000, tmp_path) as cluster:
        wait_for_step(cluster, 400)
        process_of(cluster, "worker:1").kill()
        eventually(lambda: cluster.status().restart_count == 1, "the restart to be told")
        wait_for_generation(cluster, 1)
        result = cluster.wait(200)
    assert history(cluster) == [("worker:1", KILLED, 1)]
    assert cluster.status().restarts[0].alone
    assert result.generations == 1
    assert result["chief:0"]["steps"] >= 6000
    assert result["chief:0"]["began_at"] == 0
    assert evaluate_saved_model("keras", tmp_path / "model") >= REQUIRED_ACCURACY
    assert left_of(cluster) == []


def test_fit_of_keras_goes_on_after_its_last_whole_epoch(spark: Any, tmp_path: Path) -> None:
    """BackupAndRestore, with an evaluator that follows."""
    roles = Roles(chief=1, worker=1, evaluator=1)
    grace = {"evaluator": 60.0}
    with begin_digits(spark, fit_or_evaluate, roles, 3000, tmp_path, grace=grace) as cluster:
        wait_for_step(cluster, 300)
        process_of(cluster, "worker:0").kill()
        result = cluster.wait(200)
    assert history(cluster) == [("worker:0", KILLED, 1)]
    assert result["chief:0"]["began_at"] == result["worker:0"]["began_at"] >= 200
    assert [step for step, _ in result["evaluator:0"]] == list(range(100, 3001, 100))
    assert evaluate_saved_model("tf_keras", tmp_path / "model") >= REQUIRED_ACCURACY
    assert left_of(cluster) == []


def save_for_ever(args: Any, ctx: Any) -> str | None:
    """The chief of the first generation saves one large checkpoint after the other; those of the
    next one tell what they find."""
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(large=tf.Variable(tf.zeros(2**25)))
    latest: str | None = ctx.latest_checkpoint()
    if latest is not None:
        checkpoint.restore(latest).assert_consumed()
        return latest
    while ctx.is_chief and not ctx.should_stop:
        checkpoint.save(f"{ctx.checkpoint_dir}/ckpt")
    ctx.wait_for_stop()
    return None


def test_of_a_chief_that_is_killed_in_the_middle_of_a_save_the_checkpoint_before_is_used(
    spark: Any, tmp_path: Path
) -> None:
    """The torn one has files, and is none."""
    folder = tmp_path / "model" / "checkpoints"

    def half_written() -> bool:
        names = {path.name for path in folder.glob("*-0001/*")}
        return "ckpt-2.index" in names and any(name.startswith("ckpt-3") for name in names)

    options = {"model_dir": str(tmp_path / "model"), **TENSORFLOW}
    roles = Roles(chief=1, worker=1)
    with begin(spark, save_for_ever, tmp_path, roles, **options) as cluster:
        victim = process_of(cluster, "chief:0")
        eventually(half_written, "a checkpoint to be half written")
        victim.kill()
        result = cluster.wait(100)
    names = {path.name for path in folder.glob("*-0001/*")}
    assert any(name.startswith("ckpt-3") for name in names)
    assert "ckpt-3.index" not in names, "it was killed too late to show anything"
    assert history(cluster) == [("chief:0", KILLED, 1)]
    assert {str(each).rpartition("/")[2] for each in result.returned.values()} == {"ckpt-2"}
    assert left_of(cluster) == []


def hang_in_a_collective(args: Any, ctx: Any) -> int:
    """Two workers that cannot take a step without each other; worker 1 of the first generation
    sleeps for ever after a few. Its TensorFlow lives, so that no peer gives it up."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function
    def reduce() -> Any:
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", 1.0))

    def read_from_a_dead_disk() -> None:
        time.sleep(1000)

    for step in range(1, 21):
        if step == 10 and ctx.task_index == 1 and ctx.generation == 1:
            read_from_a_dead_disk()
        reduce()
        ctx.report_progress(step)
    return int(ctx.generation)


def test_a_rank_that_never_comes_to_the_collective_is_found_and_named(
    spark: Any, tmp_path: Path
) -> None:
    """E5: all ranks are late alike; the stacks tell who waits for whom."""
    options = {"stall_timeouts": StallTimeouts(step=8.0), **TENSORFLOW}
    with begin(spark, hang_in_a_collective, tmp_path, **options) as cluster:
        result = cluster.wait(150)
    assert set(result.returned.values()) == {2}
    assert history(cluster) == [("worker:1", Cause.STALLED.value, 1)]
    assert "read_from_a_dead_disk" in cluster.status().restarts[0].summary
    assert left_of(cluster) == []
