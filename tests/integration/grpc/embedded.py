"""Starts `python -m coordinator.embedded` and looks after it: leaving leaves no process behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from coordinator.client import RunClient
from coordinator.core.access import ClientTls
from coordinator.embedded import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "a-token-that-nobody-may-see"

# A driver: starts its coordinator, tells where it is, and does nothing more. Descriptor 0 is the
# coordinator's standard input, so that the test may keep the other end of the lifeline.
DRIVER = """
import os, signal, subprocess, sys
coordinator = subprocess.Popen(
    [sys.executable, "-m", "coordinator.embedded"], stdin=0, stdout=subprocess.PIPE,
    stderr=2, start_new_session=True,
)
line = coordinator.stdout.readline()
os.write(1, b"%d %d %s" % (os.getpid(), coordinator.pid, line))
signal.pause()
"""


def _spawn(*arguments: str, log: Path, **options: object) -> subprocess.Popen[bytes]:
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT},
            **options,
        )


class EmbeddedProcess:
    """The coordinator process of this process, or of a stand-in for a driver.

    The test holds the lifeline in both cases. ``driver`` is the stand-in.
    """

    def __init__(self, log: Path, *, own_driver: bool = False, port: int = 0) -> None:
        self._log = log
        self._own_driver = own_driver
        self._port = port
        self.token = TOKEN

    def __enter__(self) -> EmbeddedProcess:
        read_end, self.lifeline = os.pipe()
        arguments = ("-c", DRIVER) if self._own_driver else ("-m", "coordinator.embedded")
        self.driver = _spawn(*arguments, log=self._log, stdin=read_end)
        os.close(read_end)
        driver_pid = self.driver.pid if self._own_driver else os.getpid()
        config = {"token": TOKEN, "driver_pid": driver_pid, "port": self._port}
        os.write(self.lifeline, json.dumps(config).encode() + b"\n")
        self.answer = self._answer(self.driver.stdout)
        self.address = f"127.0.0.1:{self.answer.get('port')}"
        self.tls = ClientTls.of(self.answer["tls"]) if "tls" in self.answer else None
        return self

    def client(self) -> RunClient:
        """The driver's."""
        return RunClient(self.address, TOKEN, self.tls)

    def _answer(self, stdout: IO[bytes] | None) -> dict[str, Any]:
        assert stdout is not None
        line = stdout.readline()
        self.pid = self.driver.pid
        if self._own_driver:
            _, pid, line = line.split(maxsplit=2)
            self.pid = int(pid)
        self._pidfd = os.pidfd_open(self.pid)
        return json.loads(line)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill_driver()
        if not self._is_gone_within(0):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.cut_lifeline()
        self.driver.wait()
        os.close(self._pidfd)
        if self.driver.stdout is not None:
            self.driver.stdout.close()

    def kill_driver(self) -> None:
        if self._own_driver and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()

    def cut_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self) -> int | None:
        """Waits for the end of the process; its exit code, if it was ours."""
        assert self._is_gone_within(30), "the coordinator is still there"
        return None if self._own_driver else self.driver.wait()

    def _is_gone_within(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    @property
    def stderr(self) -> str:
        return self._log.read_text()
