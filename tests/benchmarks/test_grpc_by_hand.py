"""The client by hand speaks what a server of gRPC's own understands."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from benchmarks.grpc_by_hand import Connection, ConnectionLost, Ended, Message

_TIMEOUT = 20.0
_LARGE = b"x" * 100_000
"""More than a frame holds."""


def _echo(request: bytes, context: Any) -> bytes:
    if dict(context.invocation_metadata()).get("authorization") != "Bearer token":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
    return _LARGE if request == b"large" else request


def _double(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for request in requests:
        yield request * 2


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        methods = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo),
            "Double": grpc.stream_stream_rpc_method_handler(_double),
        }
        handler = grpc.method_handlers_generic_handler("test.Service", methods)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()


def _until_ended(connection: Connection, messages: int) -> list[Message | Ended]:
    """So many messages, or the end of a stream."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    seen: list[Message | Ended] = []
    deadline = time.monotonic() + _TIMEOUT
    while sum(isinstance(news, Message) for news in seen) < messages:
        if any(isinstance(news, Ended) for news in seen):
            break
        assert poller.poll(max(0.0, deadline - time.monotonic()) * 1000), "no answer"
        seen += connection.receive()
    return seen


METADATA = (("authorization", "Bearer token"),)


def test_a_unary_call_is_answered_also_in_many_frames(port: int) -> None:
    connection = Connection("127.0.0.1", port, METADATA)
    small = connection.ask("/test.Service/Echo", b"small")
    large = connection.ask("/test.Service/Echo", b"large")

    seen = _until_ended(connection, 1)
    seen += _until_ended(connection, 2 - sum(isinstance(news, Message) for news in seen))

    answers = {news.stream: news.data for news in seen if isinstance(news, Message)}
    connection.close()
    assert answers == {small: b"small", large: _LARGE}


def test_a_refused_call_ends_without_a_message(port: int) -> None:
    connection = Connection("127.0.0.1", port)
    stream = connection.ask("/test.Service/Echo", b"who am I")

    seen = _until_ended(connection, 1)

    connection.close()
    assert seen == [Ended(stream)]


def test_a_stream_takes_message_after_message(port: int) -> None:
    connection = Connection("127.0.0.1", port, METADATA)
    stream = connection.call("/test.Service/Double")
    for text in (b"a", b"b"):
        connection.send(stream, text)
        assert _until_ended(connection, 1) == [Message(stream, text * 2)]
    connection.close()


def test_the_end_of_the_server_is_noticed(port: int) -> None:
    listener = select.poll()
    connection = Connection("127.0.0.1", port, METADATA)
    listener.register(connection.fileno(), select.POLLIN)
    connection._socket.shutdown(2)

    assert listener.poll(_TIMEOUT * 1000)
    with pytest.raises(ConnectionLost):
        connection.receive()
    connection.close()
