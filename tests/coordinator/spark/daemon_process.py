"""A standalone coordinator for tests, as users start it, and a cable to it that can be cut."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from coordinator.client import RunClient
from coordinator.credentials import read_token
from coordinator.tls import client_tls
from tests.coordinator.certificates import DaemonFiles

ROOT = Path(__file__).parents[3]
_DEADLINE = 60.0
_TLS_FLAGS = ("--tls-cert", "--tls-key", "--tls-client-ca")
_LISTENS = re.compile(rb"listens on (\S+)")


class Daemon:
    """``tflease serve`` on a port of loopback that is free, in memory. ``url``: for
    ``coordinator=...``. ``tls``: None: plaintext."""

    def __init__(self, folder: Path, tls: DaemonFiles | None = None) -> None:
        self._tls = tls
        self.token_file = folder / "token"
        self._log = (folder / "daemon.log").open("wb")
        serve = ("serve", "--listen", "127.0.0.1:0", "--token-file", str(self.token_file))
        serve += ("--in-memory",)
        if tls is not None:
            for flag, file in zip(_TLS_FLAGS, tls.server, strict=True):
                serve += (flag, str(file))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.cli", *serve],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            self.address = self._announced()
        except BaseException:
            self.close()
            raise
        if tls is not None:  # the name in the certificate
            self.address = self.address.replace("127.0.0.1", "localhost")
        self.url = f"{'grpc' if tls is None else 'grpcs'}://{self.address}"

    def _announced(self) -> str:
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], _DEADLINE)
            chunk = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            log = Path(self._log.name).read_text()
            assert chunk, f"the daemon did not announce itself: {line!r} {log}"
            line += chunk
        found = _LISTENS.search(line)
        assert found, f"the daemon announced no address: {line!r}"
        return found[1].decode()

    def client(self) -> RunClient:
        tls = None if self._tls is None else client_tls(**self._tls.client)
        return RunClient(self.address, read_token(self.token_file), tls)

    def close(self) -> None:
        """In order, as an operator would; at once when it does not go."""
        self.process.terminate()
        try:
            self.process.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


class Cable:
    """A way to ``target`` ("host:port") that lets nothing through while it is cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._is_cut = False
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._lock:
                try:
                    far = socket.create_connection(self._target) if not self._is_cut else None
                except OSError:  # nobody listens there any more
                    far = None
                if far is None:
                    near.close()
                    continue
                self._ends += [near, far]
                pumps = [
                    threading.Thread(target=_pump, args=each) for each in ((near, far), (far, near))
                ]
                self._threads += pumps
            for pump in pumps:
                pump.start()

    def cut(self) -> None:
        """On return nothing that was open is open any more."""
        with self._lock:
            self._is_cut = True
            ends, self._ends = self._ends, []
        for end in ends:
            _shut(end)

    def mend(self, target: str = "") -> None:
        """``target``: somewhere else from now on."""
        with self._lock:
            self._is_cut = False
            if target:
                host, _, port = target.rpartition(":")
                self._target = host, int(port)

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_DEADLINE)
            assert not thread.is_alive(), "a thread of the cable does not end"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    for end in (source, sink):
        _shut(end)
    source.close()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        end.shutdown(socket.SHUT_RDWR)
