"""The driver's side of a feed with real members: sockets, TLS, the keeper's steps, feeders and
consumers; only Spark and the coordinator are stand-ins. Feeders run on threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.core.errors import FeedFailed
from coordinator.core.model import Endpoint, ExecutorInfo, Roles, RunView
from coordinator.spark.feed.feeding import Feeding
from executor_agent.feed.feeder import TaskIdentity
from executor_agent.feed.server import FeedServer
from executor_agent.linux import boot_id
from tests.coordinator.spark.feed.fake_feeding import (
    DataFrame,
    FakeSession,
    FakeSpark,
    FeedJob,
    view,
)
from tests.feed.feed_scene import Background, a_scene, batch_of, values
from tests.feed.feed_scene import Scene as Members

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ATTEMPTS = iter(range(1, 1_000_000))


def partition(number: int, rows: int, size: int = 100) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, size):
        yield batch_of(1_000_000 * number + start, min(size, rows - start))


def feeding_for_real(job: FeedJob) -> list[Any]:
    """Each partition by a feeder, two at a time."""

    def one(number: int) -> dict[str, Any]:
        task = TaskIdentity(number, 0, next(ATTEMPTS))
        return job.feeder.deliver(partition(number, job.data.partitions[number]), task)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(len(job.data.partitions))))


class Session(FakeSession):
    """Tells what the members count, whenever it is asked."""

    def __init__(self, run: RunView, servers: dict[str, FeedServer]) -> None:
        super().__init__(run)
        self._servers = servers

    @property
    def view(self) -> RunView:
        with self._changed:
            members = tuple(
                replace(member, metrics=self._servers[str(member.id)].counters())
                for member in self._view.members
            )
            return replace(self._view, members=members)

    def wait_for(self, condition: Callable[[RunView], bool], timeout: float | None) -> bool:
        """What is counted changes without telling anybody."""
        deadline = time.monotonic() + (timeout or 0.0)
        while not condition(self.view):
            if time.monotonic() >= deadline:
                return False
            threading.Event().wait(0.01)
        return True


def run_of(members: Members, directory: Path) -> RunView:
    run = view(Roles(worker=len(members.servers)))
    described = []
    for member in run.members:
        name = str(member.id)
        port = members.servers[name].port
        folder = str(directory / name.replace(":", "-"))
        executor = ExecutorInfo("host", boot_id(), 1, directory=folder)
        endpoint = Endpoint("127.0.0.1", 1, port)
        described.append(replace(member, endpoint=endpoint, executor=executor))
    return replace(run, members=tuple(described))


class Cast:
    """Members, each with a consumer on a thread of its own, and the driver."""

    def __init__(self, members: Members, work: Callable[[FeedJob], list[Any]]) -> None:
        self.servers = list(members.servers.values())
        self.stopping = threading.Event()
        self.spark = FakeSpark(work)
        run = run_of(members, members._directory)
        self.feeding = Feeding(
            self.spark,  # type: ignore[arg-type]
            Session(run, members.servers),  # type: ignore[arg-type]
            members.key,
            "mnist",
            run.spec.roles,
        )

    def consume(
        self, batch_size: int | None, *, equal: bool, enough: int | None = None
    ) -> list[Background]:
        """What each member has read, by epoch. ``enough``: rows after which it stops."""

        def consume(server: FeedServer) -> list[list[int]]:
            feed = server.feeds["input"]
            feed.open(batch_size, equal)
            train = feed.wait_for_train(self.stopping.is_set)
            found: list[list[int]] = []
            for epoch in train.epoch_readers() if train else ():
                found.append([])
                for chunk in epoch.chunks():
                    found[-1] += values([chunk])
                    if enough is not None and len(found[-1]) >= enough:
                        feed.terminate("it has seen enough")
            return found

        return [Background(consume, server) for server in self.servers]


@contextmanager
def a_cast(workers: int, work: Callable[[FeedJob], list[Any]] = feeding_for_real) -> Iterator[Cast]:
    with a_scene() as members:
        members.workers(workers)
        cast = Cast(members, work)
        try:
            yield cast
        finally:
            cast.stopping.set()


def all_rows(data: DataFrame) -> list[int]:
    return sorted(
        value
        for number, rows in enumerate(data.partitions)
        for value in values(list(partition(number, rows)))
    )


@pytest.mark.parametrize("partitions", [(1003,), (0, 0, 1), (7,) * 40, (2000, 0, 3), ()])
def test_all_members_take_the_same_steps_whatever_the_partitions(
    partitions: tuple[int, ...],
) -> None:
    """F4."""
    data = DataFrame(*partitions)
    total = sum(partitions)
    with a_cast(2) as cast:
        reading = cast.consume(32, equal=True)
        report = cast.feeding.train(data, 2, deterministic=True)
        found = [each.result() for each in reading]
    steps = total // 64
    assert [(each.rows, each.steps, each.left_out) for each in report.epochs] == [
        (total, steps, total - 64 * steps)
    ] * 2
    assert (report.delivery, report.stopped) == ("exactly once", "")
    for epoch in range(2 if total else 0):
        parts = [each[epoch] if len(each) > epoch else [] for each in found]
        assert [len(part) for part in parts] == [32 * steps] * 2
        assert len({*parts[0], *parts[1]}) == 64 * steps


def test_every_row_is_delivered_once_where_steps_may_differ() -> None:
    """F2."""
    data = DataFrame(1003, 5, 0, 200)
    with a_cast(2) as cast:
        reading = cast.consume(None, equal=False)
        report = cast.feeding.train(data, 3)
        found = [each.result() for each in reading]
    assert (report.rows, report.left_out, report.epochs[0].steps) == (3 * 1208, 0, None)
    assert sum(report.epochs[0].members.values()) == 1208
    read = [each[epoch] for each in found for epoch in range(len(each))]
    assert sorted(value for part in read for value in part) == sorted(3 * all_rows(data))


def test_one_that_has_seen_enough_ends_it_for_all_without_an_error() -> None:
    """F6: and the same members can be fed again."""
    with a_cast(2) as cast:
        reading = cast.consume(10, equal=True, enough=100)
        report = cast.feeding.train(DataFrame(*[5000] * 20), 50)
        assert "it has seen enough" in report.stopped or "wanted no more" in report.stopped
        assert report.rows < 50 * 100_000
        assert all(len(each.result()[-1]) < 100_000 for each in reading)
        reading = cast.consume(10, equal=True)
        again = cast.feeding.train(DataFrame(1000), 1)
        assert (again.rows, again.stopped) == (1000, "")
        assert [len(each.result()[0]) for each in reading] == [500, 500]


def test_a_job_that_fails_ends_the_consumers_train_and_the_next_one_works() -> None:
    def failing(job: FeedJob) -> list[Any]:
        if job.feeder.train == 1:
            job.feeder.deliver(partition(0, 500), TaskIdentity(0, 0, next(ATTEMPTS)))
            raise RuntimeError("Traceback (most recent call last):\n  x\nValueError: bad row")
        return feeding_for_real(job)

    with a_cast(2, failing) as cast:
        reading = cast.consume(10, equal=True)
        with pytest.raises(FeedFailed, match="ValueError: bad row"):
            cast.feeding.train(DataFrame(1000), 3)
        for each in reading:
            each.result()  # it ends, and does not wait for rows that never come
        reading = cast.consume(10, equal=True)
        assert cast.feeding.train(DataFrame(1000), 1).rows == 1000
        assert [len(each.result()[0]) for each in reading] == [500, 500]
