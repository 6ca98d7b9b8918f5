"""Work with a store that may be away for a while: tried again until nothing has moved for long.

Owns: the threads in which such work is done, so that a library that does not answer holds up
nobody for ever, and the pauses between two tries.
"""

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from coordinator.core.stall_timeouts import Section
from executor_agent.ingest.errors import may_pass
from executor_agent.ingest.store import in_thread
from executor_agent.model_files import StoreError, said_by
from executor_agent.progress import ProgressReporter

Answer = TypeVar("Answer")

PATIENCE = 600.0
"""Seconds without any progress after which a store counts as lost."""

_LOOK = 0.05  # seconds
_TELL_INTERVAL = 5.0  # seconds between two words of progress while somebody waits
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0  # seconds


class Movement:
    """When something moved last. Thread-safe: writers only move it forward."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def moved(self) -> None:
        self._at = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds."""
        return time.monotonic() - self._at


def pause(failures: int) -> float:
    """Seconds until the next try; not the same for all members."""
    return float(
        min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 10)) * random.uniform(0.5, 1)
    )


def say(text: str) -> None:
    """In the member's log."""
    print(f"tflease: {text}", file=sys.stderr, flush=True)


def wait(
    is_over: Callable[[float], bool],
    movement: Movement,
    progress: ProgressReporter,
    patience: float,
) -> bool:
    """Wait in the section "checkpoint", and tell progress as long as there is some, until
    `is_over(seconds)`, which may wait so long, or until nothing has moved for `patience` seconds.
    Whether it is over."""
    entered = progress.enter(Section.CHECKPOINT)
    told_at = time.monotonic()
    try:
        while not is_over(_LOOK):
            if movement.silence > patience:
                return is_over(0.0)
            now = time.monotonic()
            if now - told_at > _TELL_INTERVAL and movement.silence < now - told_at:
                progress.leave(entered)
                entered, told_at = progress.enter(Section.CHECKPOINT), now
        return True
    finally:
        progress.leave(entered)


def patiently(
    work: Callable[[Callable[[], None]], Answer],
    doing: str,
    progress: ProgressReporter,
    patience: float = PATIENCE,
) -> Answer:
    """What `work(moved)` returns; it is to call `moved()` when something moves. What may pass is
    tried again, until nothing has moved for `patience` seconds, or nothing was finished in many
    tries.

    Raises:
        StoreError: that was too long.
        Exception: what cannot pass, as the store's library says it.
    """
    movement, began, failures = Movement(), time.monotonic(), 0
    last: BaseException | None = None
    while True:
        answer = in_thread(lambda: work(movement.moved))
        ended = threading.Event()
        answer.add_done_callback(lambda _, ended=ended: ended.set())  # type: ignore[misc]
        if not wait(ended.wait, movement, progress, patience):
            # Not its repr: that of a web client's has the headers of the request, credentials too.
            said = f"; it failed before: {said_by(last)}" if last is not None else ""
            raise StoreError(f"{doing}: nothing has moved for {patience:g} s{said}") from last
        last = answer.exception()
        if last is None:
            return answer.result()
        failures += 1
        if not may_pass(last) or (time.monotonic() - began > patience and failures > 3):
            raise last
        say(f"{doing} failed and is tried again: {said_by(last)}")
        time.sleep(pause(failures))
