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
from typing import Any

import coordinator
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.embedded import ENVIRONMENT, EmbeddedConfig
from coordinator.security import new_token
from coordinator.spark.addresses import joined

_START_TIMEOUT = 60.0
_LIFELINE_TIMEOUT = 2.0
_WILDCARDS = ("0.0.0.0", "::")
_PACKAGE_ROOT = str(Path(coordinator.__file__).resolve().parent.parent)


class CoordinatorProcess:
    """A child of the driver, in a session of its own so that Ctrl-C does not reach it.

    ``address``: "host:port" for clients on executors. ``own_address``: for the driver, which takes
    the direct way: a NAT often does not let its own inside in again. ``token`` and ``tls``: for
    both. ``patience``: 0, for when it is gone it is gone for good.
    """

    patience = 0.0
    name = "the coordinator"

    def __init__(
        self, bind_host: str, port: int, told_host: str, told_port: int | None = None
    ) -> None:
        """``told_host``, ``told_port``: where executors reach it; None: the port that it listens
        on. Raises CoordinatorUnavailable when it does not come up."""
        self.token = new_token()
        self.tls: ClientTls | None = None
        environment = {**os.environ, **ENVIRONMENT}
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGE_ROOT, inherited)))
        environment["PYTHONSAFEPATH"] = "1"  # else a random.py in the working directory is ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            config = EmbeddedConfig(self.token, os.getpid(), bind_host, port)
            found_port, self.tls, self.metrics_url = self._handshake(config)
        except BaseException:
            self.kill()
            raise
        self.address = joined(told_host, told_port or found_port)
        own_host = "127.0.0.1" if bind_host in _WILDCARDS else bind_host
        self.own_address = joined(own_host, found_port)

    def _handshake(self, config: EmbeddedConfig) -> tuple[int, ClientTls, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write((config.to_json() + "\n").encode())
            self._process.stdin.flush()
        deadline = time.monotonic() + _START_TIMEOUT
        answer = self._parse(self._read_line(deadline), deadline)
        if "error" in answer:
            raise CoordinatorUnavailable(f"the coordinator did not start: {answer['error']}")
        return int(answer["port"]), ClientTls.of(answer["tls"]), str(answer["metrics"])

    def _parse(self, line: bytes, deadline: float) -> dict[str, Any]:
        if not line:
            code: int | None = None
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(max(0.0, deadline - time.monotonic()))
            return {"error": f"it ended with exit code {code}, see this process's standard error"}
        try:
            return dict(json.loads(line))
        except (TypeError, ValueError):
            # What may be the beginning of a key is not shown.
            return {"error": f"it said {line[:20]!r}"}

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()  # select() refuses descriptors above 1023
        poller.register(descriptor, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
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

    def is_gone(self) -> bool:
        """Nobody starts it again."""
        return not self.is_alive

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
            self._process.wait(min(timeout, _LIFELINE_TIMEOUT))
        except subprocess.TimeoutExpired:
            self._process.terminate()  # a fork of the driver's may hold the lifeline open
            self._wait_or_kill(timeout - _LIFELINE_TIMEOUT)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _wait_or_kill(self, timeout: float) -> None:
        try:
            self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """At once. Members notice within the fence time, their tasks when their jobs are
        cancelled."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
