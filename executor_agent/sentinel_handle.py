"""A running sentinel as the task sees it: who it is, whether it has ended, what it says.

Owns: the waiting, for a child as for a sentinel that has detached itself. Must not know what a
sentinel is for, nor decide when it has to end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from contextlib import suppress

from executor_agent.core.supervision import TAKEN_OVER
from executor_agent.processes import ProcessIdentity, identity_of, signal_if_same

_START_TIMEOUT = 60.0  # for a detached sentinel to say who it is: a Python's start, and much slack


class AttachedSentinel:
    """Our child: the kernel tells us how it ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        # Not waited for yet, so that it has an identity even if it is dead already.
        identity = identity_of(process.pid)
        if identity is None:
            raise RuntimeError("/proc is not mounted")
        self.identity = identity

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it."""
        return self._process.returncode

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end. False: it still runs after `timeout` seconds."""
        process = self._process
        if process.poll() is not None:
            return True
        if timeout is None:
            process.wait()
            return True
        try:
            pidfd = os.pidfd_open(process.pid)
        except (OSError, AttributeError):  # refused here: subprocess polls instead
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        else:
            try:
                _readable(pidfd, timeout)
            finally:
                os.close(pidfd)
        return process.poll() is not None

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """Nothing is held open."""


class DetachedSentinel:
    """Nobody's child, so that it is no zombie of a Spark worker that is used again. What it says
    comes through a pipe that it alone holds open for writing: the pipe's end is its end."""

    exit_code: int | None = None  # init was told, not we

    def __init__(self, starter: subprocess.Popen[bytes], voice: int) -> None:
        """`starter` was exec'ed, forks and ends; `voice` is the reading end and ours from now on.
        OSError, and nothing runs, or will once the caller's lifeline is closed."""
        self._voice: int | None = voice
        self._heard = b""
        self._ended = False
        try:
            self.identity = self._introduction()
        except BaseException:
            starter.kill()
            self.close()
            raise
        finally:
            starter.wait()  # it has ended by now, or was killed

    def _introduction(self) -> ProcessIdentity:
        while not self._ended and b"\n" not in self._heard:
            if not self._listen(_START_TIMEOUT):
                raise TimeoutError(f"the sentinel did not start within {_START_TIMEOUT:g} s")
        line, complete, self._heard = self._heard.partition(b"\n")
        if not complete:
            raise ChildProcessError("the sentinel did not start, see the executor's stderr")
        pid, create_time = json.loads(line)
        return ProcessIdentity(pid, create_time)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end. False: it still runs after `timeout` seconds (or has said a word)."""
        while not self._ended and self._listen(timeout):
            pass
        return self._ended

    def takes_over(self, timeout: float) -> bool:
        """Wait until it says that it needs us no more. False: it ended, or kept silent."""
        while not (self._ended or self._heard == TAKEN_OVER) and self._listen(timeout):
            pass
        return self._heard == TAKEN_OVER

    def terminate(self) -> None:
        """SIGTERM: it stops the member."""
        signal_if_same(self.identity, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        signal_if_same(self.identity, signal.SIGKILL)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._voice is not None:
            voice, self._voice = self._voice, None
            os.close(voice)

    def _listen(self, timeout: float | None) -> bool:
        """Take in what it says next. False: nothing within `timeout` seconds."""
        if self._voice is None or not _readable(self._voice, timeout):
            return False
        said = os.read(self._voice, 4096)
        self._heard += said
        self._ended = not said
        return True


def _readable(fd: int, timeout: float | None) -> bool:
    poll = select.poll()  # select() refuses descriptors above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
