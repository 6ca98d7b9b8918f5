"""A feeder against workers that do as they are told; the real worker's side is at the end."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.feeder import FEED_ROW_SCHEMA, Feeder, TaskIdentity
from executor_agent.feed.link import PartitionRefused
from executor_agent.feed.pieces import MAX_PIECE_BYTES, pieces_of
from executor_agent.feed.sending import EPOCH_CLOSED, FeedBroken
from executor_agent.feed.wire import FeedRefused
from tests.feed.fake_worker import KEY, FakeWorker, Scene

TASK = TaskIdentity(partition=0, attempt_number=0, attempt=7)
RETRY = replace(TASK, attempt_number=1, attempt=8)

Hire = Callable[..., FakeWorker]


@pytest.fixture
def hire() -> Iterator[Hire]:
    """Makes workers; with the test they end, and so has every thread of a feeder."""
    workers: list[FakeWorker] = []
    with tempfile.TemporaryDirectory(prefix="feed-") as directory:  # short: a socket's path

        def make(scene: Scene | None = None) -> FakeWorker:
            workers.append(FakeWorker(f"worker:{len(workers)}", Path(directory), scene))
            return workers[-1]

        yield make
        for worker in workers:
            worker.close()
    assert not [each.name for each in threading.enumerate() if "tflease-feed" in each.name]


def feeder(*workers: FakeWorker, **changes: Any) -> Feeder:
    endpoints = tuple(worker.endpoint for worker in workers)
    plain = Feeder(endpoints, KEY, "input", 1, 0, deterministic=True, patience=0.01)
    return replace(plain, **changes)


def batches(*sizes: int, first: int = 0) -> Iterator[pa.RecordBatch]:
    for size in sizes:
        yield pa.RecordBatch.from_pydict({"n": list(range(first, first + size))})
        first += size


def test_a_partition_is_delivered_and_its_row_says_so(hire: Hire) -> None:
    worker = hire()
    row = feeder(worker).deliver(batches(3, 0, 4), replace(TASK, partition=5))
    assert worker.values("n") == list(range(7))
    assert worker.offsets() == [(0, 3), (3, 7)]
    assert row.pop("seconds") >= 0
    assert row == {
        "partition": 5, "attempt": 7, "rows": 7, "skipped": 0, "again": 0, "bytes": 56,
        "stopped": None, "workers": json.dumps({"worker:0": 7}),
        "marks": json.dumps({"worker:0": 7}),
    }  # fmt: skip
    hello = worker.hellos[0]
    assert {name: hello[name] for name in ("feed", "train", "epoch", "partition", "attempt")} == {
        "feed": "input", "train": 1, "epoch": 0, "partition": 5, "attempt": 7,
    }  # fmt: skip
    worker.wait_for_end()


def test_an_empty_partition_calls_nobody(hire: Hire) -> None:
    worker = hire()
    row = feeder(worker).deliver(batches(0, 0), TASK)
    assert (row["rows"], row["stopped"], row["workers"]) == (0, None, "{}")
    assert not worker.hellos


def test_one_partition_is_spread_over_all_workers(hire: Hire) -> None:
    workers = [hire(), hire(), hire()]
    row = feeder(*workers).deliver(batches(*[100] * 60), TASK)
    assert row["rows"] == 6000
    assert sorted(n for worker in workers for n in worker.values("n")) == list(range(6000))
    shares = json.loads(row["workers"])
    assert shares == {each.endpoint.member: len(each.values("n")) for each in workers}
    assert min(shares.values()) > 0


def test_a_worker_that_does_not_read_holds_up_nobody(hire: Hire) -> None:
    stuck, quick = hire(Scene(gate=threading.Semaphore(0))), hire()
    big = [pa.RecordBatch.from_pydict({"b": [bytes(3 << 20)]}) for _ in range(20)]
    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(feeder(stuck, quick).deliver, iter(big), TASK)
        quick.wait_for(18)
        assert not row.done()  # what the other has not acknowledged is not delivered
        assert stuck.scene.gate is not None
        stuck.scene.gate.release(2)
        assert json.loads(row.result(10)["workers"]) == {"worker:0": 2, "worker:1": 18}


def test_back_pressure_stops_the_reading_of_spark(hire: Hire) -> None:
    gate = threading.Semaphore(0)
    worker, asked = hire(Scene(gate=gate)), 0
    is_held_up = threading.Event()

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal asked
        for batch in batches(*[1] * 50):
            asked += 1
            if asked > 4:
                is_held_up.set()
            yield batch

    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(feeder(worker).deliver, source(), TASK)
        gate.release(1)
        worker.wait_for(1)
        assert is_held_up.wait(
            10
        )  # one taken, two without acknowledgement, one waiting, and the next
        assert asked == 5
        gate.release(49)
        assert row.result(10)["rows"] == 50


def test_batches_are_cut_to_size_and_a_larger_row_goes_alone(hire: Hire) -> None:
    worker = hire()
    sizes = [1, 1, 6 << 20, 1, 3 << 20, 3 << 20, 1]
    batch = pa.RecordBatch.from_pydict({"b": [bytes(size) for size in sizes]})
    row = feeder(worker).deliver(iter([batch]), TASK)
    assert row["rows"] == 7
    assert [len(value) for value in worker.values("b")] == sizes
    for _, part in worker.batches:
        assert part.nbytes <= MAX_PIECE_BYTES or part.num_rows == 1


def test_a_retry_skips_what_is_taken_anywhere(hire: Hire) -> None:
    """F2: two workers have rows of the attempt before; both are asked before anything is sent."""
    first = hire(Scene({"action": "go", "taken": [[0, 10], [20, 30]], "rows": 20}))
    second = hire(Scene({"action": "go", "taken": [[10, 15]], "rows": 5}))
    row = feeder(first, second).deliver(batches(25, 25), RETRY)
    assert (row["rows"], row["skipped"], row["again"]) == (25, 25, 0)
    sent = sorted(first.values("n") + second.values("n"))
    assert sent == [*range(15, 20), *range(30, 50)]
    assert sorted(first.offsets() + second.offsets()) == [(15, 20), (30, 50)]


def test_a_retry_of_other_data_sends_all_again_and_says_so(hire: Hire) -> None:
    """F2: skipping would drop rows that come in another order."""
    worker = hire(Scene({"action": "go", "taken": [[0, 10]], "rows": 10}))
    row = feeder(worker, deterministic=False).deliver(batches(25), RETRY)
    assert (row["rows"], row["skipped"], row["again"]) == (25, 0, 10)
    assert worker.values("n") == list(range(25))


def test_a_retry_asks_every_worker_but_a_first_attempt_only_some(hire: Hire) -> None:
    workers = [hire() for _ in range(11)]
    feeder(*workers).deliver(batches(1), TASK)
    assert sum(len(worker.hellos) for worker in workers) == 8
    feeder(*workers).deliver(batches(1), RETRY)
    assert all(worker.hellos[-1]["attempt"] == RETRY.attempt for worker in workers)


def test_a_first_attempt_that_is_none_asks_every_worker(hire: Hire) -> None:
    """Spark counts attempts from 0 again when it repeats a whole stage."""
    workers = [hire() for _ in range(11)]
    workers[0].scene.reply["earlier"] = True
    feeder(*workers).deliver(batches(1), TASK)
    assert all(worker.hellos for worker in workers)


def test_more_workers_are_called_when_those_known_take_nothing(hire: Hire) -> None:
    gate = threading.Semaphore(0)
    stuck = [hire(Scene(gate=gate)) for _ in range(8)]
    free = [hire(), hire()]
    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(feeder(*stuck, *free).deliver, batches(*[1] * 40), TASK)
        for worker in free:
            worker.wait_for(1)
        gate.release(1000)
        assert row.result(10)["rows"] == 40


def test_what_a_stopped_worker_has_not_taken_goes_to_another(hire: Hire) -> None:
    stopping, other = hire(Scene(last_batch=1, then="stop")), hire()
    row = feeder(stopping, other).deliver(batches(*[10] * 10), TASK)
    assert row["stopped"] is None
    assert row["rows"] == 100
    assert sorted(stopping.values("n") + other.values("n")) == list(range(100))
    assert len(stopping.batches) == 1


def test_when_all_have_stopped_the_feeder_returns_and_reads_no_more(hire: Hire) -> None:
    """F6."""
    workers = [hire(Scene(last_batch=1, then="stop")), hire(Scene(last_batch=2, then="stop"))]
    asked = 0

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal asked
        for batch in batches(*[10] * 1000):
            asked += 1
            yield batch

    row = feeder(*workers).deliver(source(), TASK)
    assert row["stopped"] == "stop was said"
    assert row["rows"] == 30
    assert asked < 20


def test_a_stop_reaches_a_feeder_that_waits_for_room(hire: Hire) -> None:
    worker = hire(Scene(last_batch=0, then="stop"))
    big = (pa.RecordBatch.from_pydict({"b": [bytes(3 << 20)]}) for _ in range(20))
    row = feeder(worker).deliver(big, TASK)
    assert (row["stopped"], row["rows"]) == ("stop was said", 0)


@pytest.mark.parametrize(
    "reply, stopped",
    [
        ({"action": "stop", "reason": "enough"}, "enough"),
        ({"action": "done"}, EPOCH_CLOSED),
    ],
)
def test_a_worker_that_wants_nothing_from_the_start(
    hire: Hire, reply: dict[str, Any], stopped: str
) -> None:
    row = feeder(hire(Scene(reply))).deliver(batches(5), TASK)
    assert (row["stopped"], row["rows"]) == (stopped, 0)


@pytest.mark.parametrize("text", [{"action": "error", "text": "no"}, {"error": "no"}])
def test_a_refused_hello_is_an_error_at_once(hire: Hire, text: dict[str, Any]) -> None:
    worker = hire(Scene({"action": "error", **text}))
    with pytest.raises(FeedRefused, match=r"worker:0.*no"):
        feeder(worker, patience=1e9).deliver(batches(5), TASK)


def test_an_error_in_mid_stream_is_an_error_at_once(hire: Hire) -> None:
    worker = hire(Scene(last_batch=1, then="error"))
    with pytest.raises(PartitionRefused, match="worker:0: error was said"):
        feeder(worker, patience=1e9).deliver(batches(*[5] * 100), TASK)


def test_a_worker_that_dies_breaks_the_feed_and_is_named(hire: Hire) -> None:
    """F3."""
    dying, other = hire(Scene(last_batch=1, then="die")), hire()
    with pytest.raises(FeedBroken, match=r"the feed to worker:0 broke: .* rows of this partition"):
        feeder(dying, other).deliver(batches(*[5] * 1000), TASK)


def test_a_worker_that_is_not_there_breaks_the_feed_and_is_named() -> None:
    nobody = FeedEndpoint("worker:3", "127.0.0.1", 9)
    with pytest.raises(FeedBroken, match="the feed to worker:3 broke: cannot reach"):
        Feeder((nobody,), KEY, "input", 1, 0, True, patience=0.01).deliver(batches(5), TASK)


def test_an_error_of_the_source_is_raised_and_all_threads_end(hire: Hire) -> None:
    worker = hire()

    def source() -> Iterator[pa.RecordBatch]:
        yield from batches(5)
        worker.wait_for(1)
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        feeder(worker).deliver(source(), TASK)


def test_rows_of_an_rdd_are_converted(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = hire()
    monkeypatch.setattr("executor_agent.feed.feeder.this_task", lambda: TASK)
    (row,) = feeder(worker).rows(iter([(1, "a"), (2, "b")]))
    assert row["rows"] == 2
    assert worker.values("_2") == ["a", "b"]


def test_the_row_is_what_its_schema_says(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = hire()
    monkeypatch.setattr("executor_agent.feed.feeder.this_task", lambda: TASK)
    (batch,) = feeder(worker)(batches(5))
    assert batch.schema.names == [part.split()[0] for part in FEED_ROW_SCHEMA.split(", ")]
    assert batch.to_pylist()[0]["rows"] == 5


def test_outside_of_a_task_there_is_nothing_to_feed(hire: Hire) -> None:
    with pytest.raises(RuntimeError, match="not in a Spark task"):
        list(feeder(hire())(batches(5)))


def test_it_travels_light() -> None:
    key = FeedKey(b"s" * 32, "certificate", "private").for_feeders()
    made = Feeder((FeedEndpoint("worker:0", "h", 1),), key, "input", 1, 0, True)
    assert pickle.loads(pickle.dumps(made)) == made
    assert "s" * 32 not in repr(made)
    code = "import executor_agent.feed.feeder, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "numpy", "tensorflow", "grpc", "pyspark"} & set(done.stdout.split())


def test_pieces_cover_what_is_not_skipped_and_nothing_else() -> None:
    (batch,) = batches(100)
    skip = [(0, 3), (10, 10), (50, 60), (119, 200)]
    pieces = list(pieces_of(batch, 20, skip, limit=8 * 7))
    rows = [n for piece in pieces for n in range(piece.offset, piece.offset + piece.rows)]
    assert rows == [*range(20, 50), *range(60, 119)]
    assert [n + 20 for piece in pieces for n in piece.batch.column("n").to_pylist()] == rows
    assert all(piece.batch.nbytes <= 8 * 7 for piece in pieces)
