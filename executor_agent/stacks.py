"""Where the threads of a member's process stand, asked from outside, by its agent.

Owns: asking in turn those who may know, and reading what comes of it. The other side of the two
signals is `stack_signal`; how an answer is put is in `core.stacks`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from executor_agent.core import stacks
from executor_agent.processes import ProcessIdentity, is_running, signal_if_same

TIMEOUT: Final = 2.0
"""Seconds that `dump` takes at most."""

# Of these, in turn: Python itself, py-spy where it is installed, and faulthandler, to the end.
_PYTHON_TIMEOUT = 0.8
_PY_SPY_TIMEOUT = 0.7

_QUIET = 0.1  # seconds without another word from faulthandler: that was all
_LOOK_INTERVAL = 0.01
_MAX_READ = 1 << 20  # bytes: a hundred threads, a hundred frames each


class StacksUnavailable(OSError):
    """They could not be had; the text says why."""


def dump(directory: Path, member: ProcessIdentity) -> str:
    """The Python stacks of all threads of `member`, the main thread's first, at most 16 KiB.

    Blocks for up to `TIMEOUT`. The process goes on unharmed, and one of which we are not sure that
    it is `member`, and expects our signals, is not touched. Raises OSError, saying why.
    """
    deadline = time.monotonic() + TIMEOUT
    if not is_running(member):
        raise ProcessLookupError(f"process {member.pid} is gone")
    with open(directory / stacks.FILE, "rb") as file:
        try:
            answering = stacks.Answering.from_json(file.readline())
        except ValueError as error:
            raise StacksUnavailable(str(error)) from None
        _check(answering, member, os.fstat(file.fileno()))
        asked = _Asked(member, file)
        text = asked.send(answering.question, time.monotonic() + _PYTHON_TIMEOUT)
        if (answer := stacks.of_python(text)) is not None:
            return answer
        # Native code holds the GIL, or the process is stopped.
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            return _ask_py_spy(member)
        main = answering.main_thread
        text = asked.send(answering.force, deadline, lambda text: stacks.has_thread(text, main))
    if not text:
        raise StacksUnavailable(f"process {member.pid} did not answer within {TIMEOUT:.0f} s")
    return stacks.of_python(text) or stacks.of_faulthandler(text, answering.main_thread)


class _Asked:
    def __init__(self, member: ProcessIdentity, file: IO[bytes]) -> None:
        self._member = member
        self._file = file

    def send(
        self, number: int, deadline: float, is_all: Callable[[str], bool] = lambda _: False
    ) -> str:
        """What is written after the signal: Python's whole answer; or until `is_all`, and nothing
        follows any more; or until the deadline. Raises ProcessLookupError."""
        begin = self._file.seek(0, os.SEEK_END)
        if not signal_if_same(self._member, number):
            raise ProcessLookupError(f"process {self._member.pid} is gone, or not ours to signal")
        text, give_up_at = "", deadline
        while time.monotonic() < give_up_at:
            time.sleep(_LOOK_INTERVAL)
            self._file.seek(begin)
            found = self._file.read(_MAX_READ).decode(errors="replace")
            if stacks.of_python(found) is not None:
                return found
            if found != text and is_all(found):
                give_up_at = min(deadline, time.monotonic() + _QUIET)
            text = found
        return text


def _check(answering: stacks.Answering, member: ProcessIdentity, file: os.stat_result) -> None:
    """A signal kills who does not expect it, and what comes of it must go into our file: user code
    may have called exec, or have closed what it did not open. Raises OSError."""
    pid = member.pid
    if (answering.pid, answering.create_time) != (pid, member.create_time):
        raise StacksUnavailable(f"process {pid} is not the one that answers here")
    if not _catches(pid, answering.question) or not _catches(pid, answering.force):
        raise StacksUnavailable(f"process {pid} does not expect our signals")
    there = os.stat(f"/proc/{pid}/fd/{answering.descriptor}")
    if (there.st_dev, there.st_ino) != (file.st_dev, file.st_ino):
        raise StacksUnavailable(f"process {pid} has closed the file {stacks.FILE!r}")


def _catches(pid: int, number: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) >> (number - 1) & 1)
    return False


def _ask_py_spy(member: ProcessIdentity) -> str:
    """Raises OSError, ValueError, SubprocessError: not installed, not allowed to look, too slow,
    not understood."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))
    program = shutil.which("py-spy", path=path)
    if program is None:
        raise FileNotFoundError("py-spy is not installed")
    # Without --nonblocking it stops the process, which would stay stopped should py-spy be killed
    # at the wrong moment.
    command = (program, "dump", "--nonblocking", "--json", "--pid", str(member.pid))
    done = subprocess.run(command, capture_output=True, timeout=_PY_SPY_TIMEOUT, check=True)
    if not is_running(member):  # whoever has its number now was asked
        raise ProcessLookupError(f"process {member.pid} is gone")
    return stacks.of_py_spy(done.stdout)
