"""Frames, Arrow streams and the handshake, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from executor_agent.feed.stream import ByteStream, Interrupted, Waker
from executor_agent.feed.wire import MAX_FRAME_BYTES, Connection, encode
from tests.feed.feed_scene import DEADLINE, SCHEMA, Background, Scene, batch_of, values


@pytest.fixture
def raw() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the other end of it, which says what it likes."""
    ours, theirs = socket.socketpair()
    connection = Connection(ByteStream(ours))
    with theirs:
        yield connection, theirs
    connection.close()


@pytest.fixture(params=["local", "tls"])
def ends(scene: Scene, request: pytest.FixtureRequest) -> Iterator[tuple[Connection, Connection]]:
    """The two ends of a connection that has proved itself: the client's, the server's."""
    server = scene.member()
    served: list[Connection] = []
    ready, over = threading.Event(), threading.Event()

    def hold(hello: dict[str, object], connection: Connection) -> None:
        connection.send({"greeting": hello["greeting"]})
        served.append(connection)
        ready.set()
        over.wait(DEADLINE)

    server.register("test", hold)
    local = request.param == "local"
    client = scene.dial(server, {"kind": "test", "greeting": "hi"}, local=local)
    assert ready.wait(DEADLINE)
    yield client, served[0]
    client.close()
    over.set()


Ends = tuple[Connection, Connection]


# --- frames ---------------------------------------------------------------------------------------


def test_the_reply_to_the_hello_is_the_handlers_first_message(ends: Ends) -> None:
    client, _ = ends
    assert client.reply == {"greeting": "hi"}
    assert client.member == "worker:0"


def test_frames_travel_in_both_directions(ends: Ends) -> None:
    client, server = ends
    client.send({"one": 1})
    client.send({"two": [2, "ü"]})
    server.send({"three": None})
    assert server.receive(DEADLINE) == {"one": 1}
    assert server.receive(DEADLINE) == {"two": [2, "ü"]}
    assert client.receive(DEADLINE) == {"three": None}


def test_a_connection_is_not_readable_before_something_was_sent(ends: Ends) -> None:
    """TLS must not send tickets of its own after the handshake."""
    client, server = ends
    assert not client.is_readable()
    assert not server.is_readable()
    server.send({"now": True})
    assert client.wait_readable(DEADLINE)
    assert client.is_readable()
    client.receive()
    assert not client.is_readable()


def test_the_end_is_none_and_readable(ends: Ends) -> None:
    client, server = ends
    client.close()
    assert server.wait_readable(DEADLINE)
    assert server.receive(DEADLINE) is None


def test_a_timeout_loses_no_byte(raw: tuple[Connection, socket.socket]) -> None:
    connection, other = raw
    frame = encode({"a": "long enough to be cut"})
    for part in (frame[:2], frame[2:9]):
        other.sendall(part)
        with pytest.raises(TimeoutError):
            connection.receive(0.01)
    other.sendall(frame[9:] + encode({"b": 2}))
    assert connection.receive(DEADLINE) == {"a": "long enough to be cut"}
    assert connection.receive(DEADLINE) == {"b": 2}


@pytest.mark.parametrize(
    "data, text",
    [
        (b"\x00\x00", "in the middle of a message"),
        (encode({"a": 1})[:-1], "in the middle of a message"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "over the limit"),
        ((0).to_bytes(4, "big"), "over the limit"),
        ((2).to_bytes(4, "big") + b"no", "no JSON"),
        ((4).to_bytes(4, "big") + b"[1 ]", "no object"),
        ((2).to_bytes(4, "big") + b"\xff\xfe", "no JSON"),
    ],
)
def test_what_is_no_frame_is_an_error(
    raw: tuple[Connection, socket.socket], data: bytes, text: str
) -> None:
    connection, other = raw
    other.sendall(data)
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match=text):
        connection.receive(DEADLINE)


def test_a_message_that_is_too_long_is_not_sent(raw: tuple[Connection, socket.socket]) -> None:
    connection, other = raw
    with pytest.raises(ValueError, match="over the limit"):
        connection.send({"a": "x" * MAX_FRAME_BYTES})
    connection.send({"b": 1})
    assert json.loads(other.recv(100)[4:]) == {"b": 1}


# --- Arrow ----------------------------------------------------------------------------------------


def test_arrow_streams_travel_between_frames(ends: Ends) -> None:
    client, server = ends
    large = batch_of(0, 1 << 19)  # 4 MiB: many reads, and many records of TLS

    def send() -> None:
        client.send({"before": 1})
        with client.writer(SCHEMA) as writer:
            writer.write_batch(large, custom_metadata={"offset": "17"})
            writer.write_batch(batch_of(5, 2))
        client.send({"after": 2})

    sending = Background(send)
    assert server.receive(DEADLINE) == {"before": 1}
    reader = server.reader()
    first = reader.read_next_batch_with_custom_metadata()
    assert first.batch.equals(large)
    assert first.custom_metadata["offset"] == b"17"
    assert values([reader.read_next_batch()]) == [5, 6]
    with pytest.raises(StopIteration):
        reader.read_next_batch()
    assert server.receive(DEADLINE) == {"after": 2}
    sending.result()


def test_a_batch_that_is_cut_is_an_error(ends: Ends) -> None:
    client, server = ends
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch_of(0, 1000))
    client._stream.write(memoryview(sink.getvalue())[:2000])
    client.close()
    reader = server.reader()
    with pytest.raises((OSError, pa.ArrowInvalid)):
        reader.read_next_batch()


def test_who_waits_is_interrupted_in_the_middle_of_a_batch(ends: Ends) -> None:
    client, server = ends
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch_of(0, 1000))
    client._stream.write(memoryview(sink.getvalue())[:2000])
    waker = Waker()
    server.listen_to(waker)
    reader = server.reader()
    reading = Background(reader.read_next_batch)
    assert not reading.is_done
    waker.set()
    with pytest.raises(Interrupted):
        reading.result()
    server.listen_to(None)
    waker.close()


def test_who_is_stuck_in_a_send_is_interrupted(raw: tuple[Connection, socket.socket]) -> None:
    connection, _ = raw
    waker = Waker()
    connection.listen_to(waker)
    sending = Background(lambda: [connection.send({"a": "x" * 500_000}) for _ in range(100)])
    waker.set()
    with pytest.raises(Interrupted):
        sending.result()
    waker.close()


def test_finish_lets_the_last_words_arrive_while_the_other_end_still_sends(ends: Ends) -> None:
    """Closing on unread bytes would reset the connection, and take our last words from it."""
    client, server = ends
    sending = Background(lambda: [client.send({"a": "x" * 500_000}) for _ in range(20)])
    server.send({"stop": "enough"})
    finishing = Background(server.finish)
    sending.result()
    assert client.receive(DEADLINE) == {"stop": "enough"}
    assert client.receive(DEADLINE) is None
    client.close()
    finishing.result()


def test_finish_does_not_wait_for_ever(raw: tuple[Connection, socket.socket]) -> None:
    connection, other = raw
    Background(connection.finish, 0.01).result()
    assert other.recv(1) == b""


def test_a_waker_that_is_closed_may_be_set() -> None:
    waker = Waker()
    waker.set()
    waker.set()
    assert waker.is_set()
    waker.clear()
    assert not waker.is_set()
    waker.close()
    waker.set()
    waker.clear()
    waker.close()
