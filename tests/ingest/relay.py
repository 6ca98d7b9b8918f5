"""What stands between a member and a store, and can cut the connection or let it hang."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

_CHUNK = 64 << 10


class Relay:
    """Passes everything on, both ways, until `after` bytes of answers went through. Then it either
    cuts all connections, and refuses new ones until `mend`; or it keeps them and passes nothing on.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._left: int | None = None
        self._cuts = True
        self._is_closed = False
        self.interrupted = threading.Event()
        self.refused = threading.Event()
        self.ranges: list[str] = []
        """What clients asked for, in their `Range` headers."""
        self._start(self._accept)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()
        for thread in self._threads:
            thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self, after: int) -> None:
        self._left, self._cuts = after, True

    def freeze(self, after: int) -> None:
        self._left, self._cuts = after, False

    def mend(self) -> None:
        self._left = None
        self.interrupted.clear()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.interrupted.is_set() and self._cuts:
                client.close()
                self.refused.set()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._pass_requests, client, server)
            self._start(self._pass_answers, server, client)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                found = re.findall(rb"(?i)\r\nrange: (bytes=[0-9-]+)", data)
                self.ranges += [each.decode() for each in found]
                server.sendall(data)
        self._end(client, server)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if not self._may_pass(len(data)):
                    self.interrupted.set()
                    if self._cuts:
                        self._cut()
                        return
                    continue
                client.sendall(data)
        if self._cuts or not self.interrupted.is_set():  # what hangs does not even end
            self._end(server, client)

    def _may_pass(self, size: int) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left -= size
            return self._left >= 0

    def _cut(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        self._end(*sockets)

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
