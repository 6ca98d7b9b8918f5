"""How a member's process learns when to end.

Owns: the stop signal that user code sees, reading the stop pipe, watching the pipe that the Spark
task holds open, and the SIGKILL to ourselves when those who would send it are gone. A thread, not
a signal handler: Python's handlers do not run while the main thread is inside TensorFlow. It needs
the GIL; for a process that never gives that up the kernel's dead-man pipe and PDEATHSIG remain.
"""

import json
import os
import select
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable

from executor_agent.core.supervision import MEMBER_STOP_FD, MEMBER_TASK_DEAD_MAN_FD

KILL_MARGIN = 2.0
"""Seconds beyond the grace before we kill ourselves: the sentinel, if there is one, comes first."""


class StopSignal:
    """Set once, when a stop of this member begins, and never cleared."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.reason: str | None = None
        """Why, in the words of whoever began it; None until then."""

    def begin(self, reason: str) -> None:
        """Wake everybody who waits and start the callbacks. Later calls change nothing.

        The callbacks get a thread of their own: the caller watches over the life of this process
        and must not be held up by them. That thread is no daemon, so what a callback saves is
        saved before the process leaves.
        """
        with self._lock:
            if self._begun.is_set():
                return
            self.reason = reason
            callbacks = tuple(self._callbacks)
            # Before anybody wakes: a `main_fun` that waits for the stop may return at once, and
            # Python waits at its end for those threads only that have been started by then.
            is_calling = bool(callbacks) and self._start(callbacks)
            self._begun.set()
        if callbacks and not is_calling:
            _call_all(callbacks)

    def _start(self, callbacks: tuple[Callable[[], None], ...]) -> bool:
        """False: there are no more threads, or the interpreter is already ending."""

        def run() -> None:
            self._begun.wait()  # callbacks see that the stop has begun
            _call_all(callbacks)

        try:
            threading.Thread(target=run, name="tflease-on-stop").start()
        except RuntimeError:
            return False
        return True

    def is_set(self) -> bool:
        """Whether the stop has begun."""
        return self._begun.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds, or for ever; whether the stop has begun."""
        return self._begun.wait(timeout)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called at the stop; at once, in this thread, if that has begun."""
        with self._lock:
            if not self._begun.is_set():
                self._callbacks.append(callback)
                return
        callback()


def _call_all(callbacks: tuple[Callable[[], None], ...]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            print("tflease: a callback given to ctx.on_stop failed:", file=sys.stderr)
            traceback.print_exc()


class Watcher:
    """Begins the stop. Before the start command there is nothing to save: then it ends at once."""

    def __init__(self) -> None:
        self.stop = StopSignal()
        self._lock = threading.Lock()
        self._started = False
        self._grace = 0.0
        self._kill_at: float | None = None  # monotonic; set once nobody is left who would kill us
        self._line = b""
        self._poller = select.poll()
        self._pipes: dict[int, int] = {}  # inode of each pipe that is watched

    def start(self) -> None:
        """Start the thread. What is no pipe is not watched: some anchors have no task pipe."""
        # POLLHUP needs no asking for.
        for descriptor, events in ((MEMBER_STOP_FD, select.POLLIN), (MEMBER_TASK_DEAD_MAN_FD, 0)):
            if inode := _pipe_inode(descriptor):
                self._pipes[descriptor] = inode
                self._poller.register(descriptor, events)
        threading.Thread(target=self._run, name="tflease-watcher", daemon=True).start()

    def started(self, grace: float) -> None:
        """The start command has come: from now on a stop leaves `grace` seconds."""
        with self._lock:
            self._started = True
            self._grace = grace

    def _run(self) -> None:
        while True:
            left = None
            if self._kill_at is not None:
                left = max(0.0, self._kill_at - time.monotonic())
                if left == 0.0:
                    _kill_ourselves()
            for descriptor, _ in self._poller.poll(None if left is None else left * 1000):
                if _pipe_inode(descriptor) != self._pipes[descriptor]:
                    # User code closed it (a closefrom), and the number may be a file of its own
                    # by now, whose end must not be taken for the end of the Spark task.
                    self._poller.unregister(descriptor)
                    print(f"tflease: warning: descriptor {descriptor} was closed", file=sys.stderr)
                elif descriptor == MEMBER_STOP_FD:
                    self._read_stop()
                else:
                    self._poller.unregister(descriptor)
                    self._orphaned("the Spark task is gone")

    def _read_stop(self) -> None:
        data = os.read(MEMBER_STOP_FD, 4096)
        if not data:
            self._poller.unregister(MEMBER_STOP_FD)
            self._orphaned("the sentinel is gone")
            return
        self._line += data
        if b"\n" not in self._line:
            return
        line, _, self._line = self._line.partition(b"\n")
        try:
            message = json.loads(line)
            reason, grace = str(message["reason"]), float(message["grace"])
        except (KeyError, TypeError, ValueError):
            # That something came means stop; how it is spelled must not matter.
            reason, grace = repr(line), self._grace
        self._grace = grace
        self._begin(reason)

    def _orphaned(self, reason: str) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace + KILL_MARGIN
        self._begin(reason)

    def _begin(self, reason: str) -> None:
        with self._lock:
            if not self._started:
                os._exit(0)
        self.stop.begin(reason)


def _pipe_inode(descriptor: int) -> int | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_ino if stat.S_ISFIFO(status.st_mode) else None


def _kill_ourselves() -> None:
    # A process that was started by hand may share its group with a shell.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
