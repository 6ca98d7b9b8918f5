"""The pictures of a run, one after the other, across interruptions of the connection.

An embedded coordinator that is out of reach is gone, and its run with it. A daemon may be away for
as long as its members keep to themselves (their fence), so the owner comes back to it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable, LimitExceeded, UnknownRun
from coordinator.core.model import RunId, RunView

_log = logging.getLogger("tflease")

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0

_BLINK = 30.0
"""Seconds for the stream of an embedded coordinator that still lives to come back: a driver that
was itself stopped for a while (Ctrl-Z, a debugger) has lost it, and nothing else."""

_REPORT_TIMEOUT = 10.0
"""Seconds to repeat a report that a daemon did not get; its agents' own reports do as well."""


def views(
    client: RunClient,
    run_id: RunId,
    patience: float,
    closed: threading.Event,
    is_gone: Callable[[], bool] | None = None,
) -> Iterator[RunView]:
    """What the coordinator tells of the run, until it has ended.

    ``patience``: seconds without a coordinator before it counts as gone; 0: one that is there for
    this run alone, of which ``is_gone`` says whether it still lives; None: it is gone when its
    stream is. Raises CoordinatorUnavailable when it is gone, when it does not know the run any
    more, or at ``closed`` while it is away; and whatever else a call raises.
    """
    is_daemon = patience > 0
    stream = client.own if is_daemon else client.watch
    if is_gone is None:
        is_gone = (lambda: False) if is_daemon else (lambda: True)
    patience = patience if is_daemon else _BLINK
    heard_at: float | None = None
    while True:
        why = "it ended the watch"
        try:
            for view in stream(run_id):
                if heard_at is not None:
                    _log.warning("the coordinator of run %s is back", run_id)
                    heard_at = None
                yield view
                if view.phase.is_terminal:
                    return
        except (CoordinatorUnavailable, LimitExceeded) as error:
            why = str(error)
        except UnknownRun:
            raise CoordinatorUnavailable(
                "it does not know the run any more: it was restarted, and runs live in its memory"
            ) from None
        if heard_at is None:
            heard_at, delay = time.monotonic(), _FIRST_DELAY
            if is_daemon and not closed.is_set():
                _log.warning(
                    "the coordinator of run %s is out of reach (%s); trying for %g s",
                    run_id, why, patience,
                )  # fmt: skip
        if is_gone() or time.monotonic() - heard_at >= patience or closed.wait(delay):
            raise CoordinatorUnavailable(why)
        delay = min(2 * delay, _LONGEST_DELAY)


def persistently(
    call: Callable[[], object], patience: float, closed: threading.Event
) -> CoordinatorUnavailable | LimitExceeded | None:
    """Calls until the coordinator has answered, for a while if it has ``patience``. What is
    returned is why it never did. Other errors pass through."""
    deadline = time.monotonic() + min(patience, _REPORT_TIMEOUT)
    delay = _FIRST_DELAY
    while True:
        try:
            call()
        except (CoordinatorUnavailable, LimitExceeded) as error:
            if time.monotonic() >= deadline or closed.wait(delay):
                return error
            delay = min(2 * delay, _LONGEST_DELAY)
        else:
            return None
