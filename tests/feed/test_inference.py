"""Inference through members: rows of several tasks in, results back to each in order (F8).

The members' end is the real server, in this process; a task is a thread that does what one of
Spark's does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.spark.feed.keys import make_key
from executor_agent.core import feed_batching
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed import inference_streams, inference_task
from executor_agent.feed.data_feed import DataFeed
from executor_agent.feed.inference import InferenceBatch, InferenceFeed
from executor_agent.feed.inference_task import InferenceFailed, InferenceTask, choose, sliced
from executor_agent.feed.results import ResultsMismatch
from executor_agent.feed.server import FeedServer
from executor_agent.feed.wire import dial
from executor_agent.linux import boot_id

FEED = "inference"
DOUBLED = pa.schema([pa.field("y", pa.int64())])
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def key() -> FeedKey:
    return make_key()


@pytest.fixture
def server(tmp_path: Path, key: FeedKey) -> Iterator[FeedServer]:
    made = FeedServer(tmp_path, 0, key, member="worker:0")
    made.start()
    try:
        yield made
    finally:
        made.close("the test is over")
        left = [each.name for each in threading.enumerate() if each.name.startswith("tflease-feed")]
        assert not left


@pytest.fixture
def endpoint(server: FeedServer) -> FeedEndpoint:
    return server.endpoint()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def task_of(
    endpoint: FeedEndpoint, key: FeedKey, schema: pa.Schema = DOUBLED, timeout: float = TIMEOUT
) -> InferenceTask:
    schema_bytes = schema.serialize().to_pybytes()
    return InferenceTask((endpoint,), key.for_feeders(), FEED, schema_bytes, timeout)


def batches_of(*counts: int, first: int = 0) -> Iterator[pa.RecordBatch]:
    """Column x counts from ``first``, in batches of these sizes."""
    for count in counts:
        yield pa.RecordBatch.from_pydict({"x": np.arange(first, first + count)})
        first += count


def ask(
    task: InferenceTask, batches: Iterator[pa.RecordBatch], partition: int = 0
) -> list[dict[str, Any]]:
    return [row for batch in task.infer(batches, partition, 0) for row in batch.to_pylist()]


@contextmanager
def model(
    server: FeedServer, batch_size: int, answer: Callable[[InferenceBatch], Any]
) -> Iterator[Future[None]]:
    """A `main_fun` that answers every batch; what it raises is in the future."""
    told = threading.Event()

    def main_fun() -> None:
        for batch in feed_of(server).batches(batch_size, stopping=told.is_set):
            batch.send(answer(batch))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(main_fun)
        try:
            yield future
        finally:
            told.set()


def feed_of(server: FeedServer) -> InferenceFeed:
    return server.inference[FEED]


def double(batch: InferenceBatch) -> Any:
    return {"y": 2 * batch["x"]}


# --- what is right --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_local", [True, False])
def test_every_row_gets_its_result_in_order(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, is_local: bool
) -> None:
    where = endpoint if is_local else replace(endpoint, path="")
    with model(server, 64, double):
        rows = ask(task_of(where, key), batches_of(100, 1, 0, 399))
    assert rows == [{"y": 2 * x} for x in range(500)]


def test_batches_cross_tasks_and_results_go_back_to_where_the_rows_came_from(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    sizes = []

    def answer(batch: InferenceBatch) -> Any:
        sizes.append(batch.rows)
        return 2 * batch["x"]  # an array: the only column has its name from the schema

    task = task_of(endpoint, key)
    asked = [pool.submit(ask, task, batches_of(7, 8, first=100 * n), n) for n in range(10)]
    while server.inference.counters().get("inference/bytes", 0.0) < 8 * 150:
        threading.Event().wait(0.01)  # until all rows have come: nobody has read any
    with model(server, 40, answer):
        for n, future in enumerate(asked):
            expected = [{"y": 2 * x} for x in range(100 * n, 100 * n + 15)]
            assert future.result(TIMEOUT) == expected
    assert sizes[:3] == [40, 40, 40]
    assert sum(sizes) == 150
    assert server.inference.counters()["inference/rows"] == 150


def test_an_empty_partition_asks_nobody(key: FeedKey) -> None:
    nobody = FeedEndpoint("worker:0", "127.0.0.1", 1)
    assert ask(task_of(nobody, key), batches_of(0, 0)) == []


def test_many_rows_pass_when_spark_pulls_slowly_and_others_are_not_held_up(
    server: FeedServer,
    endpoint: FeedEndpoint,
    key: FeedKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("INPUT_LIMIT", "RESULT_LIMIT"):
        monkeypatch.setattr(feed_batching, name, 1 << 16)
    task = task_of(endpoint, key)
    slow_rows = 1_000_000  # 8 MB: more than the sockets' buffers and the limits together
    with model(server, 4096, double):
        slow = task.infer(batches_of(*[10_000] * (slow_rows // 10_000)), 0, 0)
        first = next(slow)  # and then it pulls no more, for now
        assert len(ask(task, batches_of(50_000), 1)) == 50_000
        waiting = list(server.inference.queue(FEED)._streams.values())  # streams come and go
        queues = [list(queue) for stream in waiting for queue in (stream.chunks, stream.results)]
        held = [each.nbytes for queue in queues for each in queue]
        assert sum(held) < 1 << 18
        rows = first.num_rows + sum(batch.num_rows for batch in slow)
    assert rows == slow_rows


def test_the_reader_may_take_rows_without_arrays_and_answer_with_a_list(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(3))
    batch = feed_of(server).take(10, lambda: False)
    assert batch is not None
    batch.send([2 * row["x"] for row in batch.records.to_pylist()])
    assert asked.result(TIMEOUT) == [{"y": 0}, {"y": 2}, {"y": 4}]
    with pytest.raises(RuntimeError, match="answered already"):
        batch.send([1, 2, 3])


def test_the_data_feed_of_tensorflowonspark_gives_and_takes_lists(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    told = threading.Event()
    feed = DataFeed(feed_of(server), False, input_mapping={"x": "x"}, stopping=told.is_set)
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(5))
    while not asked.done():
        rows = feed.next_batch(2)
        assert isinstance(rows, dict)
        feed.batch_results([2 * x for x in rows["x"]])
        if rows["x"][-1] == 4:
            break
    assert asked.result(TIMEOUT) == [{"y": 2 * x} for x in range(5)]
    told.set()
    assert feed.next_batch(2) == {"x": []}
    assert feed.should_stop()


# --- what is wrong --------------------------------------------------------------------------------


def test_a_wrong_count_is_told_in_the_member_and_in_the_task(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    with model(server, 64, lambda batch: batch["x"][:-1]) as main_fun:
        with pytest.raises(InferenceFailed, match=r"worker:0: 9 results for a batch of 10 rows"):
            ask(task_of(endpoint, key), batches_of(10))
        with pytest.raises(ResultsMismatch, match=r"9 results for a batch of 10 rows"):
            main_fun.result(TIMEOUT)


def test_a_batch_without_an_answer_is_told_in_the_member_and_in_the_task(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(10))
    batches = feed_of(server).batches(5, stopping=lambda: False)
    next(batches)
    with pytest.raises(ResultsMismatch, match=r"0 results for a batch of 5 rows"):
        next(batches)
    with pytest.raises(InferenceFailed, match=r"0 results for a batch of 5 rows"):
        asked.result(TIMEOUT)


def test_a_loop_that_is_left_tells_the_tasks(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(10))
    batches = feed_of(server).batches(10, stopping=lambda: False)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    with pytest.raises(InferenceFailed, match="has left the loop"):
        asked.result(TIMEOUT)


def test_rows_that_the_model_does_not_take_fail_their_task_and_no_other(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    other = iter([pa.RecordBatch.from_pydict({"m": pa.nulls(3)})])
    with model(server, 64, double):
        with pytest.raises(InferenceFailed, match="column 'm'"):
            ask(task_of(endpoint, key), other)
        assert len(ask(task_of(endpoint, key), batches_of(3))) == 3


def test_a_type_that_was_not_asked_for_names_the_column_and_the_member_goes_on(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    wrong = pa.schema([pa.field("y", pa.list_(pa.string()))])
    with model(server, 64, double):
        with pytest.raises(ResultsMismatch, match="column 'y'"):
            ask(task_of(endpoint, key, wrong), batches_of(10))
        assert len(ask(task_of(endpoint, key), batches_of(3))) == 3


def test_rows_that_cannot_be_computed_fail_the_task_with_their_own_error(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield from batches_of(10)
        raise ZeroDivisionError("in a function of the user's")

    with model(server, 64, double):
        with pytest.raises(ZeroDivisionError, match="of the user's"):
            ask(task_of(endpoint, key), rows())
        assert len(ask(task_of(endpoint, key), batches_of(3))) == 3


def test_a_task_that_dies_leaves_nothing_waiting(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    task = task_of(endpoint, key)
    with model(server, 64, double):
        dying = task.infer(batches_of(*[1000] * 100), 0, 0)
        next(dying)
        dying.close()  # type: ignore[attr-defined]
        assert len(ask(task, batches_of(3), 1)) == 3
        queue = server.inference.queue(FEED)
        while queue._streams:
            threading.Event().wait(0.01)


@pytest.mark.parametrize("cut", ["nothing", "schema", "half a batch"])
def test_a_task_that_is_killed_in_the_middle_is_forgotten(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, cut: str
) -> None:
    hello = {"feed": FEED, "stream": "1"}
    opened = [
        dial(endpoint, key, {"kind": kind, **hello}, timeout=5.0, boot_id=boot_id())
        for kind in ("infer", "results")
    ]
    [batch] = batches_of(1000)
    if cut != "nothing":
        writer = opened[0].writer(batch.schema)
        if cut == "half a batch":
            writer.write_batch(batch)
            opened[0].send({"this": "is no batch"})
    for connection in opened:
        connection.abort()
        connection.close()
    queue = server.inference.queue(FEED)
    while queue._streams:
        threading.Event().wait(0.01)
    with model(server, 64, double):
        assert len(ask(task_of(endpoint, key), batches_of(3))) == 3


def test_a_member_that_ends_tells_its_tasks(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(10))
    assert feed_of(server).take(10, lambda: False) is not None
    server.close("main_fun has returned")
    with pytest.raises(InferenceFailed, match="worker:0: main_fun has returned"):
        asked.result(TIMEOUT)
    assert feed_of(server).take(10, lambda: False) is None


def test_a_member_that_is_told_to_stop_is_at_its_end(server: FeedServer) -> None:
    assert list(feed_of(server).batches(5, stopping=lambda: True)) == []


def test_a_member_that_vanishes_is_named(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(ask, task_of(endpoint, key), batches_of(10))
    assert feed_of(server).take(10, lambda: False) is not None
    for stream in list(server._threads.values()):  # as the death of its process does
        stream.abort()
    with pytest.raises(InferenceFailed, match=r"worker:0 is gone.* 0 results .* 10 rows"):
        asked.result(TIMEOUT)


def test_a_member_that_is_not_there_is_named(key: FeedKey) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = FeedEndpoint("worker:7", "127.0.0.1", free.getsockname()[1])
        with pytest.raises(InferenceFailed, match=r"worker:7.*cluster\.wait"):
            ask(task_of(nobody, key), batches_of(1))


def test_a_member_that_does_not_answer_is_named_with_what_it_does(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_streams, "STATE_INTERVAL", 0.05)
    with pytest.raises(InferenceFailed, match=r"10 rows wait .* not asked for ctx.inference") as no:
        ask(task_of(endpoint, key, timeout=1.0), batches_of(10))
    assert "worker:0 gave no result for 1 s" in str(no.value)


def test_a_stream_has_each_connection_once(
    server: FeedServer, endpoint: FeedEndpoint, key: FeedKey
) -> None:
    hello = {"kind": "infer", "feed": FEED, "stream": "1"}
    first = dial(endpoint, key, hello, timeout=5.0, boot_id=boot_id())
    with pytest.raises(OSError, match="has its 'infer' connection already"):
        dial(endpoint, key, hello, timeout=5.0, boot_id=boot_id())
    first.close()


# --- whom a task asks -----------------------------------------------------------------------------


def test_a_task_asks_a_member_on_its_host_and_another_one_when_it_is_tried_again() -> None:
    members = tuple(
        FeedEndpoint(f"worker:{n}", "", 1, boot_id="here" if n in (1, 2) else "there")
        for n in range(4)
    )
    assert [choose(members, "here", n, 0).member for n in range(3)] == [
        "worker:1",
        "worker:2",
        "worker:1",
    ]
    assert choose(members, "nowhere", 6, 0).member == "worker:2"
    assert choose(members, "here", 1, 1).member == "worker:3"
    assert choose(members, "here", 1, 2).member == "worker:0"


def test_rows_are_sent_in_slices_and_a_large_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_task, "_SLICE_BYTES", 80)
    [batch] = batches_of(25)
    assert [part.num_rows for part in sliced(batch)] == [10, 10, 5]
    large = pa.RecordBatch.from_pydict({"x": [b"0" * 100, b"1" * 100]})
    assert [part.num_rows for part in sliced(large)] == [1, 1]
