"""NVML asked with a deadline: a call of it may hang for ever inside the driver.

Owns: the one thread that asks. Whoever waits gives up in time, and while a call hangs nobody starts
another one; the thread is a daemon, so that not even the end of the interpreter waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from executor_agent.core.gpu_choice import Device
from executor_agent.nvml_error import NvmlError

Ask = Callable[[], list[Device]]


class GpuAnswers:
    """For any number of threads."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._begun = self._ended = 0  # calls; at most one of them runs
        self._began_at = 0.0
        self._is_closed = False
        self._answer: list[Device] | NvmlError = NvmlError("NVML was not asked yet")

    def get(self, timeout: float) -> list[Device]:
        """What NVML says from now on: an answer to an earlier question proves nothing about now.
        Raises NvmlError, also when there is none in time; at once while a call takes longer than
        that already."""
        give_up_at = time.monotonic() + timeout
        with self._changed:
            if self._begun > self._ended and time.monotonic() - self._began_at > timeout:
                give_up_at = 0.0
            wanted = self._begun + 1
            while self._ended < wanted:
                if self._begun == self._ended:
                    self._begin()
                left = give_up_at - time.monotonic()
                if left <= 0 or self._is_closed:
                    silence = time.monotonic() - self._began_at
                    raise NvmlError(f"NVML has not answered for {silence:.1f} s")
                self._changed.wait(left)
            answer = self._answer
        if isinstance(answer, NvmlError):
            raise answer
        return answer

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _begin(self) -> None:
        self._begun += 1
        self._began_at = time.monotonic()
        thread = threading.Thread(target=self._call, name="tflease-nvml", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no threads are left, or the interpreter ends
            self._begun -= 1
            raise NvmlError(f"NVML cannot be asked: {error}") from None

    def _call(self) -> None:
        answer: list[Device] | NvmlError
        try:
            answer = self._ask()
        except NvmlError as error:
            answer = error
        except Exception as error:  # whatever a library may raise means that it does not answer
            answer = NvmlError(f"NVML gives no answer: {type(error).__name__}: {error}")
        with self._changed:
            self._ended += 1
            self._answer = answer
            self._changed.notify_all()
