"""A stand-in for TensorFlowOnSpark's reservation server: pickles over TCP, one `select` loop.

Written from what was read and measured of 2.2.5: messages are pickles behind four bytes of length,
the backlog is 10, every client keeps its connection and asks again each second, and the process
dies with the 1,025th descriptor because select() takes no more. ``python -m
benchmarks.pickle_server`` prints its port; it ends when its standard input does.
"""

from __future__ import annotations

import pickle
import select
import socket
import sys
from typing import Any

MOST = 1_000
"""So many clients it bears, with some descriptors left for itself."""

_BACKLOG = 10
_PREFIX = 4  # bytes


def packed(message: Any) -> bytes:
    """As it goes over the wire."""
    data = pickle.dumps(message)
    return len(data).to_bytes(_PREFIX, "big") + data


def unpacked(data: bytearray) -> Any | None:
    """The first whole message, taken out of ``data``; None when there is none."""
    if len(data) < _PREFIX:
        return None
    end = _PREFIX + int.from_bytes(data[:_PREFIX], "big")
    if len(data) < end:
        return None
    message = pickle.loads(data[_PREFIX:end])
    del data[:end]
    return message


def serve(listener: socket.socket) -> None:
    """Until standard input ends."""
    buffers: dict[socket.socket, bytearray] = {}
    while True:
        readable, _, _ = select.select([sys.stdin, listener, *buffers], [], [], 60)
        if sys.stdin in readable:
            return
        if listener in readable:
            client, _ = listener.accept()
            buffers[client] = bytearray()
        for client in buffers.keys() & set(readable):
            _answer(client, buffers)


def _answer(client: socket.socket, buffers: dict[socket.socket, bytearray]) -> None:
    chunk = client.recv(2**16)
    if not chunk:
        del buffers[client]
        client.close()
        return
    buffers[client] += chunk
    while unpacked(buffers[client]) is not None:
        client.sendall(packed(True))


def main() -> int:
    """The process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    print(listener.getsockname()[1], flush=True)
    serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
