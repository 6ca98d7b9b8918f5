"""The guard of a process that must not outlive the driver: `python -m executor_agent.guard
--parent PID [--grace SECONDS] [--scratch DIRECTORY] -- COMMAND...`, started by PID itself, with a
pipe as its standard input whose writer nobody else has.

Starts COMMAND in a session of its own and ends when that has ended, with its exit code (128 and the
number of a signal). Everything that COMMAND has started is dead by then, wherever it hid. SIGTERM:
COMMAND is asked to leave, and killed after the grace; other signals do nothing. When PID is gone,
however it died, or closes the pipe, COMMAND is killed at once, and DIRECTORY removed. When the
guard itself is killed (SIGKILL alone can), the kernel kills COMMAND and its process group; what is
in other groups lives on.

No threads, so that forking is safe and the parent-death signal holds; and no parent-death signal on
the guard itself: it would come when the *thread* of PID ends that started it (O8).
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from contextlib import suppress
from functools import partial

from executor_agent import linux, spawn
from executor_agent.core.record import Record
from executor_agent.kill_rounds import KillRounds

LIFELINE_FD = 0
PARENT_GONE = 125
"""The exit code where the parent was gone before COMMAND was started."""

_DEAD_MAN_FD = 10  # in the command; above what it may expect to be something else
_UNHEARD = frozenset(
    {
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
        *(signal.SIGSYS, signal.SIGTRAP),  # faults: to go on would be wrong
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG, signal.SIGWINCH),
    }
)
"""Signals that keep the effect they have by themselves."""

_LOOK_INTERVAL = 0.25  # seconds; where pidfds are refused, the parent has to be looked at
_KILL_PAUSE = 0.01


class Guarded(Record):
    """What the command line says."""

    command: tuple[str, ...]
    parent: int
    grace: float = 0.0
    scratch: str = ""

    @classmethod
    def parse(cls, argv: list[str]) -> Guarded:
        """Raises ValueError."""
        given: dict[str, str] = {}
        left = iter(argv)
        for option in left:
            if option == "--":
                break
            given[option] = next(left, "")
        command = tuple(left)
        if not command or not {"--parent"} <= given.keys() <= {"--parent", "--grace", "--scratch"}:
            raise ValueError(
                "usage: --parent PID [--grace SECONDS] [--scratch DIRECTORY] -- COMMAND..."
            )
        return cls(
            command,
            int(given["--parent"]),
            float(given.get("--grace", "0")),
            given.get("--scratch", ""),
        )


class Guard:
    """One command from its start to the proof that nothing is left of it."""

    def __init__(self, asked: Guarded) -> None:
        self._asked = asked
        self._selector = selectors.DefaultSelector()
        self._is_polled = False
        self._is_parent_gone = False
        self._child: int | None = None  # its pid, as long as it is not reaped
        self._status: int | None = None
        self._kill_at: float | None = None

    def run(self) -> int:
        """The exit code. On return the command and all below it are gone."""
        self._listen()
        linux.become_subreaper()
        self._watch_parent()
        if self._kill_at is not None:
            return PARENT_GONE
        self._start()
        while self._child is not None and not self._is_kill_due():
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._look()
            self._reap()
        self._kill_all()
        if self._asked.scratch and self._is_parent_gone:
            import shutil  # late: seldom needed

            shutil.rmtree(self._asked.scratch, ignore_errors=True)
        assert self._status is not None  # the command is among those that were reaped
        code = os.waitstatus_to_exitcode(self._status)
        return code if code >= 0 else 128 - code

    def _listen(self) -> None:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        # The wakeup descriptor has the number. Those that mean nothing to us would kill us all the
        # same, and what hides in other sessions would be left; unlike what is ignored, handlers
        # are not handed down to the command.
        for number in signal.valid_signals() - _UNHEARD:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        self._selector.register(read_fd, selectors.EVENT_READ, partial(self._on_signal, read_fd))

    def _watch_parent(self) -> None:
        """Its number cannot be somebody else's as long as it is our parent."""
        try:
            pidfd: int | None = os.pidfd_open(self._asked.parent)
        except ProcessLookupError:
            self._lose_parent()
            return
        except (OSError, AttributeError):  # the kernel refuses, or this Python was built without
            pidfd = None
        if pidfd is None:
            self._is_polled = True
        else:
            self._selector.register(pidfd, selectors.EVENT_READ, partial(self._on_end, pidfd))
        os.set_inheritable(LIFELINE_FD, False)
        self._selector.register(LIFELINE_FD, selectors.EVENT_READ, self._on_lifeline)
        if os.getppid() != self._asked.parent or linux.hung_up(LIFELINE_FD):
            self._lose_parent()

    def _start(self) -> None:
        read_fd, self._dead_man = os.pipe2(os.O_CLOEXEC)  # the writing end is open as long as we
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        program = spawn.Program(
            argv=self._asked.command,
            env=os.environ,
            cwd=os.getcwd(),
            descriptors={0: null, 1: 1, 2: 2, _DEAD_MAN_FD: read_fd},
        )
        self._child = spawn.spawn(program, partial(_arm, os.getpid()))
        os.close(read_fd)
        os.close(null)

    def _patience(self) -> float | None:
        waits = [_LOOK_INTERVAL] if self._is_polled else []
        if self._kill_at is not None:
            waits.append(max(0.0, self._kill_at - time.monotonic()))
        return min(waits, default=None)

    def _is_kill_due(self) -> bool:
        return self._kill_at is not None and time.monotonic() >= self._kill_at

    def _lose_parent(self) -> None:
        self._is_parent_gone = True
        self._kill_at = time.monotonic()

    def _on_signal(self, read_fd: int) -> None:
        if signal.SIGTERM not in os.read(read_fd, 4096) or self._child is None:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._asked.grace
        with suppress(OSError):  # its number is still its own: not reaped
            os.killpg(self._child, signal.SIGTERM)

    def _on_end(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        self._lose_parent()

    def _on_lifeline(self) -> None:
        if not os.read(LIFELINE_FD, 4096):
            self._selector.unregister(LIFELINE_FD)
            self._lose_parent()

    def _look(self) -> None:
        if self._is_polled and os.getppid() != self._asked.parent:
            self._lose_parent()

    def _reap(self) -> bool:
        """Bury whoever is dead; True when we have no child left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._child:
                self._child, self._status = None, status

    def _kill_all(self) -> None:
        """Until the kernel says that there is no child left: we adopt every orphan below us."""
        rounds = KillRounds()
        if self._child is not None:
            with suppress(OSError):
                os.killpg(self._child, signal.SIGKILL)
        while not self._reap():
            rounds.run(without=None)
            time.sleep(_KILL_PAUSE)


def _arm(guard: int) -> bool:
    """In the child, before exec: the kernel kills it with the guard, and its group, too."""
    return linux.die_with_parent(guard) and linux.arm_dead_man(_DEAD_MAN_FD, os.getpid())


def main(argv: list[str]) -> int:
    """The command's exit code; 2: the command line is wrong."""
    try:
        asked = Guarded.parse(argv)
    except ValueError as error:
        print(f"executor_agent.guard: {error}", file=sys.stderr)
        return 2
    return Guard(asked).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
