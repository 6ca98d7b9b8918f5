"""The embedded coordinator as the driver sees it: start, address, end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import coordinator
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.embedded import EmbeddedConfig
from coordinator.security import new_token

_START_TIMEOUT = 60.0
_PACKAGE_ROOT = str(Path(coordinator.__file__).resolve().parent.parent)


class CoordinatorProcess:
    """A child of the driver, in a session of its own so that Ctrl-C does not reach it.

    ``address``: "host:port" for clients on this machine and on executors. ``token``: for both.
    """

    def __init__(self, bind_host: str, port: int, advertised_host: str) -> None:
        """Raises CoordinatorUnavailable when it does not come up."""
        self.token = new_token()
        environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGE_ROOT, inherited)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            config = EmbeddedConfig(self.token, os.getpid(), bind_host, port)
            found_port = self._handshake(config)
        except BaseException:
            self.kill()
            raise
        host = f"[{advertised_host}]" if ":" in advertised_host else advertised_host
        self.address = f"{host}:{found_port}"

    def _handshake(self, config: EmbeddedConfig) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write((config.to_json() + "\n").encode())
            self._process.stdin.flush()
        line = self._read_line(time.monotonic() + _START_TIMEOUT)
        answer = json.loads(line) if line else {"error": f"it ended ({self._process.wait()})"}
        if "error" in answer:
            raise CoordinatorUnavailable(f"the coordinator did not start: {answer['error']}")
        return int(answer["port"])

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise CoordinatorUnavailable(
                    f"the coordinator did not start within {_START_TIMEOUT:g} s"
                )
            chunk = os.read(descriptor, 4096)
            if not chunk:
                return b""
            line += chunk
        return line

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self, timeout: float) -> None:
        """Lets go of its lifeline: it stops what still runs and ends. On return it is gone; it is
        killed when it takes longer than ``timeout`` seconds. Idempotent."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """At once. Members notice within the fence time, their tasks when their jobs are
        cancelled."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
