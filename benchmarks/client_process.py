"""A child that plays clients, on cores of its own; the two talk JSON, a line each.

The parent's side, and what the child needs for its own. Whoever plays the clients is a module with
a ``main``; it ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from benchmarks.cores import running_on

_END_TIMEOUT = 15.0


class ClientTrouble(RuntimeError):
    """A child did not do what was waited for."""


class ClientProcess:
    """``python -m MODULE`` with its first line; on leaving it is gone."""

    def __init__(self, module: str, config: Mapping[str, Any], cores: Sequence[int]) -> None:
        self._name = module
        self._buffer = b""
        with running_on(cores):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
            )
        self.tell(config)

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tell(self, message: Mapping[str, Any]) -> None:
        """One line. Raises ClientTrouble."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line(message))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ClientTrouble(f"{self._name} has ended; see standard error") from None

    def hear(self, timeout: float) -> dict[str, Any]:
        """Its next line. Raises ClientTrouble: none within ``timeout`` seconds, it has ended, or
        it says what went wrong."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise ClientTrouble(f"{self._name} has said nothing for {timeout:g} s")
            chunk = os.read(descriptor, 2**20)
            if not chunk:
                raise ClientTrouble(f"{self._name} has ended; see standard error")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(text)
        if "failure" in answer:
            raise ClientTrouble(answer["failure"])
        return answer

    def close(self) -> None:
        """Idempotent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def line(message: Mapping[str, Any]) -> bytes:
    """One message."""
    return json.dumps(message).encode() + b"\n"


class Commands:
    """The child's side: ``fileno`` to poll, `take` what has come."""

    def __init__(self) -> None:
        self._buffer = b""
        self.is_over = False

    def first(self) -> dict[str, Any]:
        """Waits for the configuration; what may have come behind it is kept."""
        while b"\n" not in self._buffer and not self.is_over:
            self._read()
        text, _, self._buffer = self._buffer.partition(b"\n")
        config: dict[str, Any] = json.loads(text or b"{}")
        return config

    def fileno(self) -> int:
        return sys.stdin.fileno()

    @property
    def has_come(self) -> bool:
        """Whether ``take`` returns at once. An event loop may have told so once too often."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return b"\n" in self._buffer or bool(poll.poll(0))

    def take(self) -> list[dict[str, Any]]:
        """Whole lines; waits for input when there is none. ``is_over`` after the last."""
        if b"\n" not in self._buffer:
            self._read()
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(each) for each in lines]

    def _read(self) -> None:
        chunk = os.read(self.fileno(), 2**16)
        self.is_over = not chunk
        self._buffer += chunk


def say(message: Mapping[str, Any]) -> None:
    """To the parent."""
    sys.stdout.buffer.write(line(message))
    sys.stdout.buffer.flush()
