"""Threads that work for one fetch: they wait with a limit, and all of them end when it does."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from executor_agent.ingest.errors import DiskFull

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LOOK = 0.1  # seconds between two looks at whether the member is to stop
_GOODBYE = 5.0  # seconds that threads have to end after something went wrong

_SMALLEST, _FIRST, _LARGEST = 256 << 10, 8 << 20, 16 << 20  # bytes
_QUICK, _SLOW = 1.0, 8.0  # seconds


class Abandoned(Exception):
    """The fetch has ended: this thread's work is of no use any more."""


class Control:
    """What the threads of one fetch share. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self._calls: set[Future[Any]] = set()
        self._piece = _FIRST
        self.is_full = False
        """The disk is: nobody keeps a part."""

    def abandon(self) -> None:
        """End all waiting. Idempotent."""
        self._abandoned.set()
        with self._lock:
            calls = tuple(self._calls)
        for call in calls:
            call.cancel()

    def check(self) -> None:
        """Raises Abandoned."""
        if self._abandoned.is_set():
            raise Abandoned

    def pause(self, seconds: float) -> None:
        """Raises Abandoned, as soon as it is."""
        if self._abandoned.wait(seconds):
            raise Abandoned

    def result(self, call: "Future[Answer]", timeout: float) -> Answer:
        """Raises Abandoned; TimeoutError, and then nobody waits for this call any more."""
        with self._lock:
            self._calls.add(call)
        try:
            if self._abandoned.is_set():
                call.cancel()
            return call.result(timeout)
        except CancelledError:
            raise Abandoned from None
        except TimeoutError:
            if call.done():
                raise  # it says so itself
            call.cancel()
            raise TimeoutError(f"no answer within {timeout:g} s") from None
        finally:
            with self._lock:
                self._calls.discard(call)

    @property
    def piece(self) -> int:
        """How many bytes to ask for at once."""
        return self._piece

    def took(self, size: int, seconds: float) -> None:
        """A piece of that size came in that time: larger ones cost less, smaller ones are there
        before a limit of time is reached."""
        with self._lock:
            self._piece = next_piece(self._piece, size, seconds)

    def took_too_long(self) -> None:
        """A piece did not come in time."""
        with self._lock:
            self._piece = max(_SMALLEST, self._piece // 4)


def next_piece(piece: int, size: int, seconds: float) -> int:
    """The size of the next piece after one of `size` bytes, of `piece` at most, took `seconds`."""
    if seconds > _SLOW:
        return max(_SMALLEST, piece // 2)
    if seconds < _QUICK and size == piece:
        return min(_LARGEST, piece * 2)
    return piece


def in_parallel(
    control: Control,
    items: Sequence[Item],
    work: Callable[[Item], None],
    threads: int,
    look: Callable[[], None],
) -> None:
    """`work(item)` for all of them, the first ones first. `look()` is called now and then; what it
    raises, and the first exception of the work, ends everything and is raised here.

    On return, or soon after an exception, no thread works any more. One that waits for a library
    which does not answer is left behind, and changes nothing when it goes on.
    """
    condition = threading.Condition()
    waiting = iter(items)
    errors: list[BaseException] = []
    crew: list[threading.Thread] = []
    busy = 0

    def run() -> None:
        nonlocal busy
        try:
            while True:
                with condition:
                    item = next(waiting, _NOTHING)
                if item is _NOTHING:
                    return
                work(item)  # type: ignore[arg-type]
        except BaseException as error:
            if isinstance(error, DiskFull):
                control.is_full = True
            with condition:
                errors.append(error)
        finally:
            with condition:
                busy -= 1
                condition.notify_all()

    try:
        for number in range(min(threads, len(items))):
            name = f"tflease-fetch-{number}"
            thread = threading.Thread(target=run, name=name, daemon=True)
            with condition:
                busy += 1
            thread.start()
            crew.append(thread)
        while True:
            look()
            with condition:
                if condition.wait_for(lambda: errors or not busy, _LOOK):
                    break
    finally:
        if errors or busy:
            control.abandon()
        deadline = time.monotonic() + _GOODBYE
        for thread in crew:
            thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise next((each for each in errors if not isinstance(each, Abandoned)), errors[0])


_NOTHING = object()
