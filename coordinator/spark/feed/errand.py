"""What is done on a thread of Spark's, while the thread that asked for it watches the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from coordinator.core.errors import FeedFailed
from coordinator.spark.gateway import Gateway

T = TypeVar("T")


class Errand(Generic[T]):
    """Something that is done on a thread of Spark's. ``cancelled``: nobody waits for it any more,
    and it should begin nothing new. ``is_with_keeper``: set by the work itself while only the
    keeper's word is missing."""

    def __init__(self, gateway: Gateway, work: Callable[[Errand[T]], T]) -> None:
        self.cancelled = threading.Event()
        self.is_with_keeper = False
        self._done = threading.Event()
        self._work = work
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._thread = gateway.thread(self._run)
        self._thread.daemon = True

    def start(self) -> None:
        """Once."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Not before it is started, and not when it is done."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._found.append(self._work(self))
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def check(self) -> None:
        """For the work, before it begins another part of itself: raises when nobody waits for it
        any more."""
        if self.cancelled.is_set():
            raise FeedFailed("nobody waits for this any more")

    def wait(self, timeout: float) -> bool:
        """Whether it is done."""
        return self._done.wait(timeout)

    def result(self) -> T:
        """Of one that is done. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._found[0]
