"""Where a member takes rows: a Unix socket for its own host, TCP with TLS for all others.

Owns: listening, the handshake of each connection, and the thread that each of them gets. What is
said on a connection is its handler's business.

Anybody may connect to a port. Whoever has not proved himself has ten seconds, little memory, and
the place of the one who has been waiting longest, when there are many of them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from executor_agent.core.feed_values import MAX_SOCKET_PATH, SOCKET_NAME, FeedEndpoint, FeedKey
from executor_agent.feed.inference import InferenceFeeds
from executor_agent.feed.inference_streams import INFER, RESULTS, give_results, take_rows
from executor_agent.feed.keeper import KeeperDesk
from executor_agent.feed.peer import KEEPER, MOVE, follow_keeper, receive_move
from executor_agent.feed.sender import serve_feeder
from executor_agent.feed.stream import ByteStream, Interrupted, Waker
from executor_agent.feed.table import FeedTable
from executor_agent.feed.wire import (
    HANDSHAKE_TIMEOUT,
    Connection,
    Message,
    server_context,
    welcome,
)
from executor_agent.linux import boot_id

Handler = Callable[[Message, Connection], None]

FEED, CONTROL = "feed", "control"

MAX_STRANGERS = 256
_BACKLOG = 512
_ACCEPT_PAUSE = 0.1
_CLOSE_TIMEOUT = 8.0
"""Seconds that the connections have to say their last words; more than a peer gets to read them."""


class FeedServer:
    """Args:
    directory: the member's; its socket goes there.
    port: which the agent holds with SO_REUSEPORT; 0: any.
    key: of members, with its private part.
    member: "worker:1".
    tell: called when a counter has changed in a way that somebody waits for.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        port: int,
        key: FeedKey,
        *,
        member: str,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        path = str(Path(directory) / SOCKET_NAME)
        self._path = path if len(os.fsencode(path)) <= MAX_SOCKET_PATH else ""
        self._key = key
        self._context = server_context(key)
        self._listeners: list[socket.socket] = []
        self._port = port
        self._lock = threading.Lock()
        self._strangers: dict[ByteStream, None] = {}  # the oldest first
        self._threads: dict[threading.Thread, ByteStream] = {}
        self._closing = Waker()
        self._acceptor = threading.Thread(
            target=self._accept, name="tflease-feed-accept", daemon=True
        )
        self.member = member
        self.boot_id = boot_id()
        self.feeds = FeedTable(tell)
        self.inference = InferenceFeeds(member)
        self._keeper = KeeperDesk(key, self.boot_id)
        self._handlers: dict[str, Handler] = {
            FEED: lambda hello, to: serve_feeder(self.feeds[str(hello["feed"])], hello, to),
            CONTROL: self._keeper.serve,
            KEEPER: lambda hello, to: follow_keeper(self, hello, to),
            MOVE: lambda hello, to: receive_move(self.feeds[str(hello["feed"])], hello, to),
            INFER: lambda hello, to: take_rows(self.inference, hello, to),
            RESULTS: lambda hello, to: give_results(self.inference, hello, to),
        }

    def register(self, kind: str, handler: Handler) -> None:
        """Have connections whose hello is of this kind handled, each in a thread of its own. The
        handler's first message is the reply to the hello. What it raises ends the connection."""
        self._handlers[kind] = handler

    def start(self) -> None:
        """Rows may come. Raises OSError when the port is not to be had."""
        self._listeners.append(_listen_on_port(self._port))
        self._port = int(self._listeners[0].getsockname()[1])
        if self._path:
            try:
                self._listeners.append(_listen_on_path(self._path))
            except OSError:  # not every file system has sockets
                self._path = ""
        for listener in self._listeners:
            listener.setblocking(False)
        self._acceptor.start()

    @property
    def port(self) -> int:
        return self._port

    @property
    def key(self) -> FeedKey:
        return self._key

    def endpoint(self, host: str = "127.0.0.1") -> FeedEndpoint:
        """What others have to know to connect."""
        return FeedEndpoint(self.member, host, self._port, self._path, self.boot_id)

    def counters(self) -> dict[str, float]:
        """As metrics of the member: ``feed/<name>/rows`` and so on."""
        counted = {**self.feeds.counters(), **self.inference.counters()}
        return {f"feed/{name}": value for name, value in counted.items()}

    def close(self, reason: str) -> None:
        """Take no more rows; whoever sends some is told why. True on return: no thread is left."""
        self._keeper.close(reason)
        self.feeds.close(reason)
        self.inference.close(reason)
        self._closing.set()
        with suppress(RuntimeError):  # it was never started
            self._acceptor.join()
        with self._lock:
            strangers = list(self._strangers)
        for stream in strangers:
            stream.abort()
        self._end_threads()
        for listener in self._listeners:
            listener.close()
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)
        self._closing.close()

    def _end_threads(self) -> None:
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for thread in self._running():
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            stuck = list(self._threads.values())
        for stream in stuck:
            stream.abort()
        for thread in self._running():
            thread.join(1.0)

    def _running(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._threads)

    # --- connections ------------------------------------------------------------------------------

    def _accept(self) -> None:
        poller = select.poll()
        poller.register(self._closing, select.POLLIN)
        for listener in self._listeners:
            poller.register(listener, select.POLLIN)
        number = 0
        while not self._closing.is_set():
            poller.poll()
            for listener in self._listeners:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError:  # out of descriptors, mostly: it would be tried without end
                    select.select([self._closing], [], [], _ACCEPT_PAUSE)
                    continue
                number += 1
                self._serve_in_thread(sock, number)

    def _serve_in_thread(self, sock: socket.socket, number: int) -> None:
        if sock.family == socket.AF_UNIX and not _is_our_user(sock):
            sock.close()
            return
        stream = ByteStream(sock)
        thread = threading.Thread(
            target=self._serve, args=(stream,), name=f"tflease-feed-{number}", daemon=True
        )
        with self._lock:
            self._strangers[stream] = None
            while len(self._strangers) > MAX_STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                oldest.abort()
            self._threads[thread] = stream
        try:
            thread.start()
        except RuntimeError:  # out of threads
            with self._lock:
                del self._threads[thread]
                self._strangers.pop(stream, None)
            stream.close()

    def _serve(self, stream: ByteStream) -> None:
        connection: Connection | None = None
        try:
            if not stream.is_local:
                stream.secure(self._context, time.monotonic() + HANDSHAKE_TIMEOUT)
            connection = Connection(stream)
            hello = welcome(connection, self._key, self.member, lambda: self._admit(stream))
            self._handle(hello, connection)
        except (OSError, Interrupted):
            pass  # a stranger, or somebody who is gone; TLS's errors are OSErrors, too
        except Exception:
            if self._is_admitted(stream):  # a stranger writes nothing into our log
                traceback.print_exc(file=sys.stderr)  # the others go on
        finally:
            if connection is not None and self._is_admitted(stream):
                connection.finish()
            else:
                stream.close()
            with self._lock:
                self._strangers.pop(stream, None)
                del self._threads[threading.current_thread()]

    def _is_admitted(self, stream: ByteStream) -> bool:
        with self._lock:
            return stream not in self._strangers

    def _admit(self, stream: ByteStream) -> None:
        with self._lock:
            self._strangers.pop(stream, None)

    def _handle(self, hello: Message, connection: Connection) -> None:
        handler = self._handlers.get(str(hello.get("kind")))
        if handler is None:
            connection.send({"error": f"{self.member} does not know {hello.get('kind')!r}"})
            return
        handler(hello, connection)


def _listen_on_port(port: int) -> socket.socket:
    """Beside the agent's socket, which holds the port and never listens."""
    try:
        return _listening(socket.AF_INET6, "::", port)
    except OSError:  # a host without version 6, or the agent holds the port for version 4 only
        return _listening(socket.AF_INET, "0.0.0.0", port)


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The first as well: connections of a predecessor may still be in TIME_WAIT.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot take rows on port {port}: {error.strerror}") from None
    return listener


def _listen_on_path(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)  # of an earlier process of this member
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what bind makes has this mode from the start
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_our_user(sock: socket.socket) -> bool:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.getuid())
