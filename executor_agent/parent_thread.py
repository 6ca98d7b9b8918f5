"""The sentinel's parent: a thread of the Spark task that does nothing else, so that the kernel
tells the sentinel of the task's death before it has freed the task's memory.

A pidfd and a pipe tell it later: of a killed process the kernel first frees the memory, which for
a Spark worker takes some 10 ms, and then closes its files and wakes its pidfds. But the
parent-death signal is bound to the thread that forked, and is sent when that thread ends; only the
last thread of a process has its memory to free.

Owns: the threads on the task's side, and the signal on the sentinel's. Must not know what a
sentinel is for. Nothing depends on it: where the signal does not come, the pidfd does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from executor_agent.linux import signal_at_parents_end

if TYPE_CHECKING:
    import subprocess

PARENT_ENDED: Final = signal.SIGUSR1
"""From the kernel to the sentinel, which needs a handler for it before it asks for it."""


def ask_for_word_of_its_end() -> None:
    """PARENT_ENDED for us when the thread that forked us ends. Not if it has ended already: look
    for the task after this."""
    with suppress(OSError):
        signal_at_parents_end(PARENT_ENDED)


def started_by_a_thread(
    start: Callable[[], subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """What ``start`` returns or raises; it is called by a thread that ends after the process that
    it starts. Where no thread can be had nothing is lost but the early word."""
    parent = _Parent(start)
    if not _begin(parent.live):
        return start()
    process = parent.child()
    # The kernel wakes the threads from the oldest to the youngest. With a younger one it is most
    # likely not the parent that ends last, and so has the memory to free.
    _begin(lambda: _outlive(process.pid))
    return process


class _Parent:
    """A thread's work, and what came of its start."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._tried = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: BaseException | None = None

    def live(self) -> None:
        try:
            process = self._process = self._start()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._tried.set()
        _outlive(process.pid)

    def child(self) -> subprocess.Popen[bytes]:
        """Waits for it. An interrupt has to wait, too: the start needs our caller's descriptors."""
        interrupt: KeyboardInterrupt | None = None
        while not self._tried.is_set():
            try:
                self._tried.wait()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        if self._process is None:
            raise self._error or RuntimeError("the thread ended without a word")
        return self._process


def _begin(work: Callable[[], None]) -> bool:
    try:
        # A daemon: an interpreter that exits must not wait for it.
        threading.Thread(target=work, name="tflease-parent", daemon=True).start()
    except RuntimeError:  # no thread to be had
        return False
    return True


def _outlive(pid: int) -> None:
    """Wait in the kernel, without the interpreter's lock, and leave the burial to others."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass  # buried already
    except OSError:  # refused here; to end now would be to end the member
        while True:
            time.sleep(3600)
