"""Rows from real Spark tasks into members on real executors, and back. No TensorFlow: what it makes
of them is tested beside it."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import (
    FeedFailed,
    FeedStalled,
    InputMode,
    InvalidRun,
    Roles,
    TFCluster,
    TrainingFailed,
)
from coordinator.core.model import Cause
from tests.spark.helpers import DEADLINE, command, eventually, member_process_of

BATCH = 16


def take_all(args: Any, ctx: Any) -> None:
    """One train after the other; what came of each is written down."""
    import json
    import time
    from pathlib import Path

    folder, number = Path(args["folder"]), 0
    while not ctx.should_stop:
        ids: list[int] = []
        sizes: list[int] = []
        for batch in ctx.feed_batches(args["batch"], feed=args.get("feed", "input")):
            ids += [int(each) for each in batch["id"]]
            sizes.append(len(batch["id"]))
            while args.get("gate") and not Path(args["gate"]).exists():
                time.sleep(0.02)
        if ctx.should_stop and not ids:
            return
        number += 1
        done = folder / f"{number}-{ctx.task_index}"
        done.with_suffix(".part").write_text(json.dumps({"ids": ids, "sizes": sizes}))
        done.with_suffix(".part").rename(done)


class Fed:
    """A cluster that is fed, and what its members have taken."""

    def __init__(self, cluster: TFCluster, folder: Path, workers: int) -> None:
        self.cluster = cluster
        self._folder, self._workers = folder, workers

    def taken(self, number: int) -> tuple[list[list[int]], list[list[int]]]:
        """Of the train with this number: ids and sizes of batches, by worker."""
        found = []
        for worker in range(self._workers):
            path = self._folder / f"{number}-{worker}"
            eventually(path.exists, f"worker:{worker} to end its train {number}")
            found.append(json.loads(path.read_text()))
        return [each["ids"] for each in found], [each["sizes"] for each in found]


@contextmanager
def fed(
    spark: Any, folder: Path, main_fun: Any = take_all, workers: int = 2, **args: Any
) -> Iterator[Fed]:
    with TFCluster.run(
        spark,
        main_fun,
        {"folder": str(folder), "batch": BATCH, **args},
        roles=Roles(worker=workers),
        input_mode=InputMode.SPARK,
        reservation_timeout=120.0,
        preload=(),
        progress=False,
    ) as cluster:
        yield Fed(cluster, folder, workers)


def test_all_ranks_take_the_same_steps_however_the_rows_are_partitioned(
    spark: Any, tmp_path: Path
) -> None:
    """F2, F4: one partition for two workers, none at all, one row, hundreds of partitions most of
    which are empty; one train after the other in the same run."""
    cases = [
        (spark.range(0, 1000, 1, 1), 1000, 1),
        (spark.range(0, 0, 1, 3), 0, 1),
        (spark.range(0, 1, 1, 1), 1, 1),
        (spark.range(0, 200, 1, 200).where("id < 100"), 100, 1),
        (spark.range(0, 5000, 1, 7), 5000, 3),
    ]
    with fed(spark, tmp_path) as run:
        for number, (frame, rows, epochs) in enumerate(cases, start=1):
            report = run.cluster.train(frame, num_epochs=epochs)
            steps = rows // (2 * BATCH)
            assert report.rows == epochs * rows
            assert report.delivery == "exactly once"
            assert [epoch.steps for epoch in report.epochs] == [steps] * epochs
            assert report.left_out == epochs * (rows - steps * 2 * BATCH)
            ids, sizes = run.taken(number)
            assert sizes == [[BATCH] * (epochs * steps)] * 2, f"case {number}"
            for epoch in range(epochs):
                part = slice(epoch * steps * BATCH, (epoch + 1) * steps * BATCH)
                seen = [each for worker in ids for each in worker[part]]
                assert len(set(seen)) == len(seen) == steps * 2 * BATCH
                assert set(seen) <= set(range(rows))


def test_a_worker_alone_gets_every_row(spark: Any, tmp_path: Path) -> None:
    """Nobody waits for it, so nothing is left out; and an RDD is as good as a DataFrame."""
    rdd = spark.sparkContext.parallelize([{"id": each} for each in range(1003)], 5)
    with fed(spark, tmp_path, workers=1) as run:
        assert run.cluster.train(rdd).left_out == 0
        ids, sizes = run.taken(1)
        assert sorted(ids[0]) == list(range(1003))
        assert sizes[0] == [BATCH] * 62 + [11]
        run.cluster.train(spark.range(0, 50, 1, 3), num_epochs=2)
        ids, sizes = run.taken(2)
        assert sorted(ids[0]) == sorted([*range(50), *range(50)])
        assert sizes[0] == [16, 16, 16, 2] * 2, "no batch has rows of two epochs"


def test_a_feeder_that_is_killed_delivers_its_rows_once(spark: Any, tmp_path: Path) -> None:
    """F2: SIGKILL between two batches, with the members' queues full; Spark tries again."""
    gate = tmp_path / "gate"
    frame = spark.range(0, 40, 1, 2).selectExpr("id", "cast(repeat('x', 4000000) as binary) as x")
    with fed(spark, tmp_path, workers=1, gate=str(gate)) as run:
        reports: list[Any] = []
        feeding = threading.Thread(target=lambda: reports.append(run.cluster.train(frame)))
        feeding.start()
        try:
            feeders = eventually(lambda: feeders_at_rest(run), "feeders that wait for the member")
            for feeder in feeders:
                feeder.send_signal(signal.SIGKILL)
        finally:
            psutil.wait_procs(feeders, DEADLINE)
            gate.touch()
            feeding.join(2 * DEADLINE)
        assert reports
        assert reports[0].delivery == "exactly once"
        assert sorted(run.taken(1)[0][0]) == list(range(40))


def feeders_at_rest(run: Fed) -> list[psutil.Process]:
    """Spark's Python workers above no member, once nothing more gets into the member's queue."""
    counted = rows_of(run)
    time.sleep(0.7)  # longer than the counters take to get here
    if not counted or rows_of(run) != counted:
        return []
    member = member_process_of(run.cluster.run_id, "worker:0")
    above = {each.pid for each in member.parents()}
    workers = [
        each
        for each in psutil.Process().children(recursive=True)  # not another session's
        if "pyspark.daemon" in command(each) and each.pid not in above
    ]
    parents = {each.ppid() for each in workers}
    return [each for each in workers if each.pid not in parents]


def rows_of(run: Fed, member: int = 0) -> float:
    return float(run.cluster.status().members[member].metrics.get("feed/input/rows", 0))


def test_members_that_want_no_more_end_the_job_and_nothing_fails(
    spark: Any, tmp_path: Path
) -> None:
    """F6: the rest of a billion rows is not computed."""

    def take_a_few(args: Any, ctx: Any) -> int:
        batches = ctx.feed_batches(args["batch"])
        return sum(len(next(batches)["id"]) for _ in range(10))

    with fed(spark, tmp_path, take_a_few) as run:
        report = run.cluster.train(spark.range(0, 10**9, 1, 1000), num_epochs=5)
        assert report.stopped  # in whose words depends on who is heard of first
        result = run.cluster.wait(DEADLINE)
        assert result.returned == {"worker:0": 160, "worker:1": 160}
        assert active_jobs(spark) == 0


def active_jobs(spark: Any) -> int:
    return len(spark.sparkContext.statusTracker().getActiveJobsIds())


def test_a_train_can_be_stopped_and_another_begun_in_the_same_run(
    spark: Any, tmp_path: Path
) -> None:
    with fed(spark, tmp_path) as run:
        reports: list[Any] = []
        feeding = threading.Thread(
            target=lambda: reports.append(run.cluster.train(spark.range(0, 10**9, 1, 1000)))
        )
        feeding.start()
        eventually(lambda: rows_of(run) > 0, "rows on their way")
        with pytest.raises(InvalidRun, match="being filled already"):
            run.cluster.train(spark.range(10))
        run.cluster.stop_feed("I have seen enough")
        feeding.join(DEADLINE)
        assert reports[0].stopped == "I have seen enough"
        run.taken(1)  # their datasets have ended, before there is another train
        assert run.cluster.train(spark.range(0, 320, 1, 4)).rows == 320
        ids, _ = run.taken(2)
        assert sorted(ids[0] + ids[1]) == list(range(320))


def test_a_member_that_dies_is_the_cause_and_nobody_waits(spark: Any, tmp_path: Path) -> None:
    """F3, O1: with feeders connected to it, and blocked."""
    with fed(spark, tmp_path, gate=str(tmp_path / "never")) as run:
        member = member_process_of(run.cluster.run_id, "worker:1")
        kill = threading.Thread(target=lambda: (wait_for_rows(run), member.kill()))
        kill.start()
        with pytest.raises(TrainingFailed, match="worker:1") as caught:
            run.cluster.train(spark.range(0, 10**9, 1, 10))
        kill.join(DEADLINE)
    assert caught.value.failure is not None
    assert caught.value.failure.cause is Cause.KILLED_BY_SIGNAL


def wait_for_rows(run: Fed) -> None:
    eventually(lambda: rows_of(run, 1) > 0, "rows at worker:1")


def test_what_goes_wrong_in_sparks_job_is_said_and_the_members_live_on(
    spark: Any, tmp_path: Path
) -> None:
    with fed(spark, tmp_path) as run:
        broken = spark.range(0, 100, 1, 2).selectExpr(
            "float(raise_error('no such pixel')) as x", "id"
        )
        with pytest.raises(FeedFailed, match="no such pixel"):
            run.cluster.train(broken)
        assert run.cluster.train(spark.range(0, 64, 1, 2)).rows == 64


def test_a_feed_that_nobody_reads_is_diagnosed(spark: Any, tmp_path: Path) -> None:
    """Nothing waits for ever, and who is waited for has a name."""
    with (
        fed(spark, tmp_path, feed="another") as run,
        pytest.raises(FeedStalled, match=r"(?s)input.*worker:[01]"),
    ):
        run.cluster.train(spark.range(0, 10_000_000, 1, 4), feed_timeout=4.0)


def test_columns_that_do_not_fit_are_named_before_the_first_row(spark: Any, tmp_path: Path) -> None:
    def take_pixels(args: Any, ctx: Any) -> None:
        import tensorflow as tf

        row = {"pixels": tf.TensorSpec((4,), tf.float32), "id": tf.TensorSpec((), tf.int64)}
        for _ in ctx.feed_batches(args["batch"], row):
            raise RuntimeError("a row came")

    frame = spark.range(10).selectExpr("id", "'text' as pixels")

    def feed_and_wait(run: Fed) -> None:  # who hears of it first may be either
        run.cluster.train(frame)
        run.cluster.wait(DEADLINE)

    with (
        fed(spark, tmp_path, take_pixels, workers=1) as run,
        pytest.raises(TrainingFailed, match="pixels") as caught,
    ):
        feed_and_wait(run)
    assert "a row came" not in str(caught.value)


def test_predictions_come_back_in_order_and_in_full(spark: Any, tmp_path: Path) -> None:
    """F8: over any partitioning, also where partitions are empty."""

    def answer(args: Any, ctx: Any) -> None:
        for batch in ctx.inference_batches(args["batch"]):
            batch.send({"twice": batch["id"] * 2})

    with fed(spark, tmp_path, answer) as run:
        frame = spark.range(0, 5000, 1, 6).where("id % 7 > 2 or id > 2000")
        expected = [row.id * 2 for row in frame.collect()]
        found = run.cluster.inference(frame, "twice bigint").collect()
        assert [row.twice for row in found] == expected


def test_a_wrong_number_of_predictions_is_an_error_with_both_numbers(
    spark: Any, tmp_path: Path
) -> None:
    """F8."""

    def answer(args: Any, ctx: Any) -> None:
        for batch in ctx.inference_batches(args["batch"]):
            batch.send(batch["id"][1:])

    with fed(spark, tmp_path, answer, workers=1) as run:
        # Spark tries again, and then nobody answers any more: it raises what came last.
        with pytest.raises(Exception, match=r"15.*16|16.*15|cluster\.wait"):
            run.cluster.inference(spark.range(0, 100, 1, 1), "twice bigint").collect()
        with pytest.raises(TrainingFailed, match=r"15.*16|16.*15"):
            run.cluster.wait(DEADLINE)


def test_a_run_that_is_not_fed_says_so(spark: Any, gate: Path) -> None:
    def wait_for(args: Any, ctx: Any) -> str:
        from pathlib import Path

        try:
            ctx.dataset(1)
        except RuntimeError as error:
            told = str(error)
        while not Path(args).exists():
            ctx.wait_for_stop(0.05)
        return told

    with TFCluster.run(
        spark, wait_for, str(gate), roles=Roles(worker=1), preload=(), progress=False
    ) as cluster:
        with pytest.raises(InvalidRun, match=r"InputMode\.SPARK"):
            cluster.train(spark.range(3))
        gate.touch()
        assert "InputMode.SPARK" in cluster.wait(DEADLINE).returned["worker:0"]
