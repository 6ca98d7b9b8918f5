from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.control import CONTROL_ROW_SCHEMA, ControlTask, call, reply_of
from executor_agent.feed.wire import FeedRefused, FeedUnreachable
from tests.feed.fake_worker import KEY, FakeWorker

NOBODY = FeedEndpoint("worker:0", "127.0.0.1", 9)
REQUEST = {"call": "open", "feed": "input"}


@pytest.fixture
def keeper() -> Iterator[FakeWorker]:
    with tempfile.TemporaryDirectory(prefix="feed-") as directory:
        worker = FakeWorker("worker:0", Path(directory))
        yield worker
        worker.close()


def test_a_call_brings_the_request_with_its_timeout_and_the_reply(keeper: FakeWorker) -> None:
    keeper.scene.answers = [{"ok": True}]
    assert call(keeper.endpoint, KEY, REQUEST, timeout=5.0) == {"ok": True}
    assert keeper.requests == [{**REQUEST, "timeout": 5.0}]


def test_a_diagnosis_is_a_reply(keeper: FakeWorker) -> None:
    keeper.scene.answers = [{"error": "worker:1 has not opened the feed"}]
    assert "worker:1" in call(keeper.endpoint, KEY, REQUEST, timeout=5.0)["error"]


def test_a_member_that_goes_away_before_its_reply_is_unreachable(keeper: FakeWorker) -> None:
    with pytest.raises(FeedUnreachable, match="worker:0 went away before it replied to 'open'"):
        call(keeper.endpoint, KEY, REQUEST, timeout=5.0)


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(FeedUnreachable, match="worker:0"):
        call(NOBODY, KEY, REQUEST, timeout=5.0)


def test_another_run_is_refused(keeper: FakeWorker) -> None:
    stranger = FeedKey(b"x" * 32, certificate="")
    path = FeedEndpoint("worker:0", "127.0.0.1", 9, keeper.endpoint.path, keeper.endpoint.boot_id)
    with pytest.raises((FeedRefused, FeedUnreachable)):
        call(path, stranger, REQUEST, timeout=5.0)
    assert not keeper.requests


def one_row() -> Iterator[pa.RecordBatch]:
    return iter([pa.RecordBatch.from_pydict({"id": [0]})])


def test_a_task_makes_the_call_and_yields_the_reply(keeper: FakeWorker) -> None:
    keeper.scene.answers = [{"ok": True, "steps": 3}]
    task = pickle.loads(pickle.dumps(ControlTask(keeper.endpoint, KEY, REQUEST, 5.0)))
    (batch,) = task(one_row())
    assert batch.schema.names == [CONTROL_ROW_SCHEMA.split()[0]]
    assert reply_of(batch.column(0)[0].as_py()) == {"ok": True, "steps": 3}


def test_a_failed_call_fails_at_the_driver_and_not_in_the_task() -> None:
    (batch,) = ControlTask(NOBODY, KEY, REQUEST, 5.0)(one_row())
    with pytest.raises(FeedUnreachable, match="worker:0"):
        reply_of(batch.column(0)[0].as_py())
    with pytest.raises(FeedRefused, match="no"):
        reply_of('{"refused": "no"}')


def test_only_the_partition_with_a_row_calls(keeper: FakeWorker) -> None:
    empty = iter([pa.RecordBatch.from_pydict({"id": pa.array([], pa.int64())})])
    assert list(ControlTask(keeper.endpoint, KEY, REQUEST, 5.0)(empty)) == []
    assert not keeper.hellos
