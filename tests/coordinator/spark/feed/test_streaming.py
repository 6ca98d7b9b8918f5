"""`cluster.train` of a stream, on a real Structured Streaming; the members are stand-ins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.errors import (
    CoordinatorUnavailable,
    FeatureUnavailable,
    FeedFailed,
    InvalidRun,
)
from coordinator.spark.feed.report import EpochReport
from coordinator.spark.feed.streaming import FeedStream, StreamFeeds, fold
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import DataFrame, FeedJob, Scene, row
from tests.coordinator.spark.feed.local_spark import local_spark

ONCE = {"availableNow": True}
TIMEOUT = 60.0


class Files:
    """A source of micro-batches: a directory in which each file is one."""

    def __init__(self, spark: Any, path: Path) -> None:
        self._spark = spark
        self._path = path
        self._count = 0
        path.mkdir()

    def add(self, *rows: int) -> None:
        """Spark takes the oldest file first, and tells their ages in whole milliseconds."""
        self._count += 1
        hidden = self._path / f".{self._count}"
        hidden.write_text("".join(f"{row}\n" for row in rows))
        hidden.rename(self._path / f"{self._count:04}")

    def read(self) -> Any:
        reader = self._spark.readStream.schema("value string").option("maxFilesPerTrigger", 1)
        return reader.text(str(self._path))


class Fed:
    """What the members were given, by epoch; the ``work`` of a feed's jobs."""

    def __init__(self, made: Callable[[], Scene]) -> None:
        self.epochs: list[tuple[int, list[int]]] = []
        self.before: Callable[[FeedJob], None] = lambda job: None
        self._made = made

    def __call__(self, job: FeedJob) -> list[Any]:
        self.before(job)
        values = sorted(int(each.value) for each in job.data.collect())
        self.epochs.append((job.feeder.epoch, values))
        self._made().close_with(worker_0=len(values))
        return [row(0, len(values))]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with local_spark() as session:
        yield session


@pytest.fixture
def files(spark: Any, tmp_path: Path) -> Files:
    return Files(spark, tmp_path / "source")


@pytest.fixture
def fed(scene: Make) -> Fed:
    work = Fed(lambda: work_scene)
    work_scene = scene(work)
    work.scene = work_scene  # type: ignore[attr-defined]
    return work


@pytest.fixture
def feeds(fed: Fed) -> Iterator[StreamFeeds]:
    made = StreamFeeds(fed.scene.feeding)  # type: ignore[attr-defined]
    yield made
    made.close()


@pytest.mark.spark
@pytest.mark.slow
class TestReal:
    def test_each_micro_batch_is_an_epoch_of_one_train(
        self, files: Files, fed: Fed, feeds: StreamFeeds
    ) -> None:
        files.add(1, 2)
        files.add(3)
        stream = feeds.train(files.read(), trigger=ONCE)
        report = stream.wait(TIMEOUT)
        assert fed.epochs == [(1, [1, 2]), (2, [3])]
        assert [(each.number, each.rows) for each in report.epochs] == [(1, 2), (2, 1)]
        assert not stream.is_active
        keeper = fed.scene.keeper  # type: ignore[attr-defined]
        assert [call["epochs"] for call in keeper.named("open")] == [None]
        assert [call["reason"] for call in keeper.named("end")] == [""]

    def test_a_stop_lets_the_batch_under_way_be_fed(
        self, files: Files, fed: Fed, feeds: StreamFeeds
    ) -> None:
        at_work, may_go_on = threading.Event(), threading.Event()

        def before(job: FeedJob) -> None:
            at_work.set()
            assert may_go_on.wait(TIMEOUT)

        fed.before = before
        files.add(1)
        files.add(2)
        stream = feeds.train(files.read())
        assert at_work.wait(TIMEOUT)
        with pytest.raises(TimeoutError):
            stream.stop(timeout=0.0)
        with pytest.raises(TimeoutError):
            stream.wait(0.0)
        may_go_on.set()
        assert stream.stop(timeout=TIMEOUT).rows == 1
        assert stream.wait().rows == 1
        assert fed.epochs == [(1, [1])]

    def test_a_batch_that_was_cut_off_comes_again_and_one_that_was_fed_does_not(
        self, files: Files, fed: Fed, feeds: StreamFeeds, tmp_path: Path
    ) -> None:
        def cut_off(job: FeedJob) -> None:
            if job.feeder.epoch == 2:
                at_work.set()
                job.wait_until_cancelled()

        at_work, fed.before = threading.Event(), cut_off
        checkpoint = str(tmp_path / "checkpoint")
        files.add(1)
        files.add(2)
        stream = feeds.train(files.read(), checkpoint_location=checkpoint)
        assert at_work.wait(TIMEOUT)
        assert stream.stop(finish_batch=False, timeout=TIMEOUT).rows == 1
        assert stream.wait().rows == 1  # without an error

        fed.before = lambda job: None
        forget_commits(tmp_path / "checkpoint", "1")
        again = feeds.train(files.read(), checkpoint_location=checkpoint, trigger=ONCE)
        again.wait(TIMEOUT)
        assert fed.epochs == [(1, [1]), (2, [2])]

        forget_commits(tmp_path / "checkpoint", "1")  # as if it had ended before writing it
        third = feeds.train(files.read(), checkpoint_location=checkpoint, trigger=ONCE)
        assert third.wait(TIMEOUT).rows == 0
        assert fed.epochs == [(1, [1]), (2, [2])]

    def test_an_error_is_the_one_that_fed(self, files: Files, fed: Fed, feeds: StreamFeeds) -> None:
        def fail(job: FeedJob) -> None:
            raise ZeroDivisionError("in a function of the user's")

        fed.before = fail
        files.add(1)
        stream = feeds.train(files.read())
        with pytest.raises(FeedFailed, match="of the user's"):
            stream.wait(TIMEOUT)
        with pytest.raises(FeedFailed):
            stream.wait(TIMEOUT)

    def test_an_error_of_the_stream_itself_is_spark_s(
        self, spark: Any, files: Files, feeds: StreamFeeds
    ) -> None:
        files.add(1)
        data = files.read().selectExpr("string(raise_error('of the query')) AS value")
        with pytest.raises(Exception, match="of the query"):
            feeds.train(data).wait(TIMEOUT)

    def test_members_that_want_no_more_end_it_without_an_error(
        self, files: Files, fed: Fed, feeds: StreamFeeds
    ) -> None:
        def stop(job: FeedJob) -> None:
            for worker in ("worker:0", "worker:1"):
                fed.scene.session.count(worker, train=1, stopped=1)  # type: ignore[attr-defined]
            job.wait_until_cancelled()

        fed.before = stop
        files.add(1)
        report = feeds.train(files.read()).wait(TIMEOUT)
        assert "wanted no more rows" in report.stopped
        assert fed.epochs == []

    def test_a_run_that_ends_between_two_batches_ends_the_stream(
        self, files: Files, fed: Fed, feeds: StreamFeeds
    ) -> None:
        stream = feeds.train(files.read())
        fed.scene.session.lose()  # type: ignore[attr-defined]
        with pytest.raises(CoordinatorUnavailable):
            stream.wait(TIMEOUT)
        assert not stream.query.isActive

    def test_the_feed_is_free_again_when_a_stream_could_not_start(
        self, files: Files, feeds: StreamFeeds
    ) -> None:
        with pytest.raises(ValueError):
            feeds.train(files.read(), trigger={"processingTime": ""})
        feeds.train(files.read(), trigger=ONCE).wait(TIMEOUT)


def forget_commits(checkpoint: Path, batch: str) -> None:
    """Spark has not written that the batch was delivered."""
    for name in (batch, f".{batch}.crc"):
        (checkpoint / "commits" / name).unlink(missing_ok=True)


# --- without Spark --------------------------------------------------------------------------------


def test_a_stream_of_spark_connect_is_refused(scene: Make) -> None:
    class Connected(DataFrame):
        __module__ = "pyspark.sql.connect.dataframe"

    with pytest.raises(FeatureUnavailable, match="classic session"):
        StreamFeeds(scene().feeding).train(Connected(is_streaming=True))


def test_a_dataframe_that_is_no_stream_is_refused(scene: Make) -> None:
    with pytest.raises(InvalidRun, match="num_epochs"):
        StreamFeeds(scene().feeding).train(DataFrame())


def test_older_epochs_are_summed_up() -> None:
    def epoch(number: int) -> EpochReport:
        return EpochReport(number, 10, 0.5, 2, 1, {"worker:0": 9}, bytes=100, partitions=3)

    reports = [epoch(number) for number in range(1, 8)]
    fold(reports, kept=7)
    assert len(reports) == 7
    fold(reports, kept=6)
    assert reports[0] == EpochReport(3, 30, 1.5, 6, 3, {"worker:0": 27}, bytes=300, partitions=9)
    assert [each.number for each in reports[1:]] == [4, 5, 6, 7]


def test_a_stream_is_shown(scene: Make) -> None:
    made = scene()
    train = made.feeding.open_train(epochs=None)
    stream = FeedStream(made.feeding, train, lambda *_: True, lambda *_: None, None)
    assert repr(stream) == "<FeedStream 'input', active, 0 rows>"
    made.feeding.abandon_train(train, RuntimeError())
