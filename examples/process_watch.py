"""When processes end, to the millisecond: a pidfd for each, opened while it lives.

Linux only, as executors are. Asking "is it still there?" again and again would tell the time of the
question, and a number may pass to another process; a pidfd becomes readable at the end of exactly
the process it was opened for.

The watching is done by a small process of its own, this module run as a program: the threads of a
Spark driver would come between an end and its time.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from executor_agent import processes
from executor_agent.processes import ProcessIdentity

_TIMEOUT = 30.0  # for the watching process to begin and to end; it only waits in between
_WATCHING = "watching"


@dataclass(frozen=True, slots=True)
class Watched:
    """A process and what it is called in a report. ``part``: "agent"; ``of``: "ps:0"."""

    identity: ProcessIdentity
    part: str
    of: str = ""

    @classmethod
    def now(cls, pid: int, part: str, of: str = "") -> Watched:
        """Who has this number now. Raises ProcessLookupError."""
        identity = processes.identity_of(pid)
        if identity is None:
            raise ProcessLookupError(f"{part} of {of or 'the run'}, pid {pid}, is gone")
        return cls(identity, part, of)

    @property
    def pid(self) -> int:
        return self.identity.pid


class ProcessWatch:
    """Notes when each process ends. A context manager: at its end the watching ends."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        """From here on nobody's end is missed. Raises ProcessLookupError when one is gone."""
        self.watched = tuple(watched)
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "examples.process_watch"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell([(each.identity.pid, each.identity.create_time) for each in self.watched])
        answer = self._answers.readline() if self._is_answered() else "nothing: it is too slow"
        if answer.strip() != _WATCHING:
            self._give_up()
            raise ProcessLookupError(f"the watching process says {answer.strip() or 'nothing'}")

    def kill(self, victim: Watched) -> None:
        """SIGKILL to one of the watched; times count from just before."""
        self._tell(victim.pid)

    def stop(self) -> dict[Watched, float]:
        """Those that have ended and after how many seconds, the first one first."""
        out, _ = self._watcher.communicate(timeout=_TIMEOUT)
        found = dict(json.loads(line) for line in out.splitlines())
        ended = {each: found[each.pid] for each in self.watched if each.pid in found}
        return dict(sorted(ended.items(), key=lambda item: item[1]))

    @property
    def _answers(self) -> IO[str]:
        assert self._watcher.stdout is not None
        return self._watcher.stdout

    def _tell(self, value: object) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(json.dumps(value) + "\n")
        self._watcher.stdin.flush()

    def _is_answered(self) -> bool:
        return bool(select.select([self._answers], [], [], _TIMEOUT)[0])

    def _give_up(self) -> None:
        self._watcher.kill()
        self._watcher.communicate()

    def __enter__(self) -> ProcessWatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watcher.poll() is None:
            self._give_up()


def main() -> int:
    """First line in: the processes. Second: the one to kill. Out: each end. Ends with its input."""
    lines = iter(sys.stdin.readline, "")
    poller = select.epoll()
    names: dict[int, int] = {}
    try:
        for pid, create_time in json.loads(next(lines)):
            fd = processes.open_pidfd(ProcessIdentity(pid, create_time))
            if fd is None:
                raise OSError("this kernel gives no pidfds")
            names[fd] = pid
            poller.register(fd, select.EPOLLIN)
    except OSError as error:
        print(error, flush=True)
        return 1
    poller.register(sys.stdin, select.EPOLLIN)
    print(_WATCHING, flush=True)
    began_at = time.monotonic()
    is_asked = True
    while is_asked:
        for fd, _ in poller.poll():
            if fd in names:
                _say_end(poller, fd, names[fd], began_at)
            elif line := next(lines, ""):
                victim = next(fd for fd, pid in names.items() if pid == json.loads(line))
                began_at = time.monotonic()
                with suppress(ProcessLookupError):  # it has just ended by itself
                    signal.pidfd_send_signal(victim, signal.SIGKILL)
            else:
                is_asked = False
    for fd, _ in poller.poll(0):  # who ended before the input did, and was not seen in between
        if fd in names:
            _say_end(poller, fd, names[fd], began_at)
    return 0


def _say_end(poller: select.epoll, fd: int, pid: int, began_at: float) -> None:
    print(json.dumps([pid, time.monotonic() - began_at]), flush=True)
    poller.unregister(fd)


if __name__ == "__main__":
    sys.exit(main())
