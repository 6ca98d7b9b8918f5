"""Rows from feeders to the consumer, over real sockets and TLS: attempts, back-pressure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from executor_agent.feed import inbox
from executor_agent.feed.server import FeedServer
from tests.feed.feed_scene import (
    SCHEMA,
    THREADS,
    Background,
    Scene,
    batch_of,
    eventually,
    our_threads,
    read_all,
    values,
)

ROOT = Path(__file__).parents[2]


def opened(scene: Scene) -> FeedServer:
    """One worker whose first train is open."""
    server = scene.member()
    scene.open()
    return server


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_rows_reach_the_consumer_by_socket_and_by_tls(scene: Scene, local: bool) -> None:
    server = opened(scene)
    feeder = scene.feeder(server, local=local)
    assert feeder.connection.is_local is local
    assert feeder.reply["action"] == "go"
    assert feeder.feed(batch_of(0, 3), 0) == {"took": 3, "rows": 3}
    assert feeder.feed(batch_of(3, 2), 3) == {"took": 2, "rows": 5}
    feeder.end()
    reading = Background(read_all, server.feeds["input"], None, False)
    assert scene.control("close", epoch=1)["rows"] == {"worker:0": 5}
    assert reading.result() == [[0, 1, 2, 3, 4]]


def test_several_feeders_send_at_once_and_every_row_comes_once(scene: Scene) -> None:
    server = opened(scene)
    reading = Background(read_all, server.feeds["input"], 7, False)

    def feed_partition(number: int) -> None:
        feeder = scene.feeder(server, partition=number, local=number % 2 == 0)
        for offset in range(0, 50, 10):
            feeder.feed(batch_of(1000 * number + offset, 10), offset)
        feeder.end()

    for each in [Background(feed_partition, number) for number in range(8)]:
        each.result()
    scene.control("close", epoch=1)
    [rows] = reading.result()
    assert sorted(rows) == [1000 * number + row for number in range(8) for row in range(50)]


def test_epochs_are_read_one_after_the_other_and_do_not_mix(scene: Scene) -> None:
    server = scene.member()
    scene.open(epochs=3)
    reading = Background(read_all, server.feeds["input"], None, False)
    for epoch in (1, 2, 3):
        feeder = scene.feeder(server, epoch=epoch)
        if epoch != 2:  # which has no rows at all
            feeder.feed(batch_of(10 * epoch, 3), 0)
        feeder.end()
        scene.control("close", epoch=epoch)
    assert reading.result() == [[10, 11, 12], [], [30, 31, 32]]


def test_rows_of_a_train_without_a_reader_wait_for_one(scene: Scene) -> None:
    server = opened(scene)
    feeder = scene.feeder(server)
    feeder.feed(batch_of(0, 4), 0)
    closing = Background(lambda: scene.control("close", epoch=1))
    assert read_all(server.feeds["input"], None, False) == [[0, 1, 2, 3]]
    assert closing.result()["rows"] == {"worker:0": 4}


def test_the_next_train_does_not_push_out_the_rows_of_the_last_one(scene: Scene) -> None:
    server = opened(scene)
    feed = server.feeds["input"]
    feed.open(None, False)
    scene.feeder(server).feed(batch_of(0, 4), 0)
    scene.control("close", epoch=1)
    scene.open(train=2)
    scene.feeder(server, train=2).feed(batch_of(10, 2), 0)
    assert read_all(feed, None, False) == [[0, 1, 2, 3]]
    reading = Background(read_all, feed, None, False)
    scene.control("close", train=2, epoch=1)
    assert reading.result() == [[10, 11]]


def test_a_new_train_ends_the_one_before_it(scene: Scene) -> None:
    server = opened(scene)
    reading = Background(read_all, server.feeds["input"], None, False)
    feeder = scene.feeder(server)
    feeder.feed(batch_of(0, 4), 0)
    scene.open(train=2)
    assert feeder.answer() == {"stop": "train 2 has begun"}
    assert reading.result() == [[0, 1, 2, 3]]
    assert scene.feeder(server, train=1).reply["action"] == "stop"
    assert "train 1 is not open" in scene.control("close", train=1, epoch=1)["error"]


def test_columns_that_change_within_a_train_are_refused_by_name(scene: Scene) -> None:
    server = opened(scene)
    scene.feeder(server).feed(batch_of(0, 1), 0)
    other = pa.schema([("y", pa.string())])
    reply = scene.feeder(server, partition=5, schema=other).reply
    assert reply["action"] == "error"
    assert "partition 5 has y: string" in reply["text"]
    assert "x: int64" in reply["text"]


def test_a_hello_before_the_train_is_open_is_refused(scene: Scene) -> None:
    server = scene.member()
    assert "not open" in scene.feeder(server).reply["text"]


# --- back-pressure --------------------------------------------------------------------------------


@pytest.fixture
def small_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed holds 1,000 rows of eight bytes."""
    monkeypatch.setattr(inbox, "MAX_BYTES", 8000)


@pytest.mark.usefixtures("small_feeds")
def test_a_full_feed_takes_no_batch_until_the_consumer_has_taken_one(scene: Scene) -> None:
    server = opened(scene)
    feed = server.feeds["input"]
    feeder = scene.feeder(server)
    for offset in (0, 400):
        feeder.feed(batch_of(offset, 400), offset)
    feeder.send(batch_of(800, 400), 800)
    feeder.send(batch_of(1200, 400), 1200)  # the credit; both are read, neither is let in
    assert not feeder.connection.wait_readable(0.2)
    assert feed.counters()["rows"] == 800

    feed.open(None, False)
    train = feed.wait_for_train(lambda: False)
    assert train is not None
    [epoch] = [next(train.epoch_readers())]
    chunks = epoch.chunks()
    assert values([next(chunks)]) == list(range(400))
    assert feeder.answer() == {"took": 400, "rows": 1200}
    assert not feeder.connection.is_readable()
    assert values([next(chunks)]) == list(range(400, 800))
    assert feeder.answer() == {"took": 400, "rows": 1600}


@pytest.mark.usefixtures("small_feeds")
def test_a_feeder_beyond_its_credit_is_refused(scene: Scene) -> None:
    feeder = scene.feeder(opened(scene))
    feeder.feed(batch_of(0, 1000), 0)
    for offset in (1000, 1100, 1200):
        feeder.send(batch_of(offset, 100), offset)
    assert "more than 2 batches" in feeder.answer()["error"]


@pytest.mark.usefixtures("small_feeds")
def test_a_batch_larger_than_the_feed_goes_in_alone(scene: Scene) -> None:
    server = opened(scene)
    reading = Background(read_all, server.feeds["input"], None, False)
    feeder = scene.feeder(server)
    for offset in (0, 5000, 10000):
        assert feeder.feed(batch_of(offset, 5000), offset)["took"] == 5000
    feeder.end()
    scene.control("close", epoch=1)
    assert reading.result() == [list(range(15000))]


@pytest.mark.usefixtures("small_feeds")
def test_a_feeder_at_its_credit_is_never_stuck_in_a_send(scene: Scene) -> None:
    """It could not serve the workers that lack rows, for which this one waits."""
    server = opened(scene)
    feeder = scene.feeder(server)
    feeder.feed(batch_of(0, 900), 0)
    large = batch_of(0, 1 << 19)  # 4 MiB, far more than a socket holds
    Background(lambda: [feeder.send(large, 900), feeder.send(large, 900 + large.num_rows)]).result()


@pytest.mark.usefixtures("small_feeds")
def test_a_batch_of_steps_larger_than_the_feed_still_comes_together(scene: Scene) -> None:
    """F4: a worker that lacks rows for a step is never kept from them."""
    server = opened(scene)
    reading = Background(read_all, server.feeds["input"], 3000, True)
    feeder = scene.feeder(server)
    for offset in range(0, 6500, 500):
        assert feeder.feed(batch_of(offset, 500), offset)["took"] == 500
    feeder.end()
    closed = scene.control("close", epoch=1)
    assert (closed["steps"], closed["left_out"]) == (2, 500)
    assert reading.result() == [list(range(6000))]


# --- attempts -------------------------------------------------------------------------------------


def test_a_younger_attempt_fences_the_older_and_learns_what_is_there(scene: Scene) -> None:
    """F2."""
    server = opened(scene)
    old = scene.feeder(server, attempt=7)
    old.feed(batch_of(0, 5), 0)
    young = scene.feeder(server, attempt=9, local=False)
    assert young.reply["taken"] == [[0, 5]]
    assert "attempt 9" in old.answer()["error"]
    young.feed(batch_of(5, 5), 5)
    assert "attempt 9" in scene.feeder(server, attempt=7).reply["text"]
    young.end()
    reading = Background(read_all, server.feeds["input"], None, False)
    assert scene.control("close", epoch=1)["rows"] == {"worker:0": 10}
    assert reading.result() == [list(range(10))]
    assert scene.feeder(server, attempt=11).reply["action"] in ("done", "stop")


def test_rows_that_are_here_are_dropped_and_acknowledged_as_none(scene: Scene) -> None:
    server = opened(scene)
    feeder = scene.feeder(server)
    feeder.feed(batch_of(0, 5), 0)
    assert feeder.feed(batch_of(0, 5), 0) == {"took": 0, "rows": 5}
    assert "overlap" in feeder.feed(batch_of(3, 5), 3)["error"]


def test_an_epoch_that_is_closed_is_done(scene: Scene) -> None:
    server = scene.member()
    scene.open(epochs=None)
    server.feeds["input"].open(None, False)
    scene.feeder(server, epoch=4).end()
    scene.control("close", epoch=4)
    assert scene.feeder(server, epoch=4, attempt=2).reply == {"action": "done"}


FEEDER_PROCESS = """
import json, sys, signal
sys.path.insert(0, {root!r})
from tests.feed.feed_scene import Feeder, batch_of, SCHEMA
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.wire import dial
from executor_agent.linux import boot_id
import base64
given = json.loads(sys.stdin.readline())
hello = dict(kind="feed", feed="input", train=1, epoch=1, partition=0, attempt=1,
             deterministic=True,
             schema=base64.b64encode(SCHEMA.serialize().to_pybytes()).decode())
key = FeedKey(bytes.fromhex(given["secret"]), given["certificate"])
connection = dial(FeedEndpoint.from_json(given["endpoint"]), key, hello, timeout=20,
                  boot_id=boot_id() if given["local"] else "")
feeder = Feeder(connection)
feeder.feed(batch_of(0, 10), 0)
if given["half"]:
    connection._stream.write(memoryview(given["cut"].encode("latin-1")))
print("ready", flush=True)
signal.pause()
"""


def cut_batch() -> bytes:
    """The first half of a batch, as it looks on the wire."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        at = sink.tell()
        writer.write_batch(batch_of(10, 1000), custom_metadata={"offset": "10"})
        end = sink.tell()
    return sink.getvalue().to_pybytes()[at : (at + end) // 2]


@pytest.mark.slow
@pytest.mark.parametrize("half, local", [(False, False), (True, True)])
def test_a_killed_feeder_leaves_what_was_acknowledged(
    scene: Scene, half: bool, local: bool
) -> None:
    """F2: SIGKILL between two batches, and in the middle of one."""
    server = opened(scene)
    given = {
        "endpoint": server.endpoint().to_json(),
        "secret": scene.key.secret.hex(),
        "certificate": scene.key.certificate,
        "local": local,
        "half": half,
        "cut": cut_batch().decode("latin-1"),
    }
    code = FEEDER_PROCESS.format(root=str(ROOT))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as feeder:
        assert feeder.stdin
        assert feeder.stdout
        feeder.stdin.write(json.dumps(given).encode() + b"\n")
        feeder.stdin.flush()
        assert feeder.stdout.readline() == b"ready\n"
        os.kill(feeder.pid, signal.SIGKILL)
    eventually(lambda: not connection_threads(), "its thread is gone")
    again = scene.feeder(server, attempt=2, local=local)
    assert again.reply["taken"] == [[0, 10]]
    again.feed(batch_of(10, 1000), 10)
    again.end()
    reading = Background(read_all, server.feeds["input"], None, False)
    assert scene.control("close", epoch=1)["rows"] == {"worker:0": 1010}
    assert reading.result() == [list(range(1010))]


def connection_threads() -> list[str]:
    """Those of feeders; the keeper's link to its one worker has one, too."""
    numbered = [name for name in our_threads() if name.removeprefix(THREADS).isdigit()]
    return numbered[1:]


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_feeds")
@pytest.mark.parametrize("local", [True, False])
def test_terminate_tells_a_feeder_in_the_middle_of_a_send(scene: Scene, local: bool) -> None:
    """F6."""
    told: list[str] = []
    server = scene.member(tell=lambda: told.append("look"))
    scene.open()
    feed = server.feeds["input"]
    feed.open(None, False)
    feeder = scene.feeder(server, local=local)
    feeder.feed(batch_of(0, 900), 0)
    large = batch_of(0, 1 << 20)

    def send_until_told() -> None:
        for index in range(100):
            feeder.send(large, 900 + index * large.num_rows)

    sending = Background(send_until_told)
    reading = feed.wait_for_train(lambda: False)
    assert reading is not None
    feed.terminate("1,000 steps are done")
    assert feeder.answer() == {"stop": "1,000 steps are done"}
    feeder.connection.abort()
    with pytest.raises(OSError):
        sending.result()
    assert list(reading.epoch_readers()) == []
    assert feed.counters()["stopped"] == 1
    assert told
    assert scene.feeder(server).reply["action"] == "stop"
