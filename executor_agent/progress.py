"""How far a member is, on its way to the agent: what user code says of it, and what is counted.

Owns: the latest of both, the section that it is in, and the thread that sends all that. Must not
know who counts what, or how long a section may take.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from typing import SupportsInt

from coordinator.core.stall_timeouts import Section

SAVED_AT = "checkpoint/saved_at"
"""The metric that tells of the newest complete checkpoint: Unix time."""

_INTERVAL = 0.2  # seconds between two messages
_SECTION_INTERVAL = 0.02  # seconds from a message to one that tells of another section
_COUNTERS_INTERVAL = 0.5  # seconds from one look at the counters to the next
_MAX_COMPLAINT = 500  # characters

_STEPS = 2**63  # a step travels as an int64

Send = Callable[[Mapping[str, object]], None]
Counters = Callable[[], Mapping[str, float]]


def whole_step(step: SupportsInt) -> int:
    """Raises TypeError, ValueError: it is no number of steps."""
    try:
        done = int(step)
    except OverflowError:
        raise ValueError(f"step {step} is no number of steps") from None  # infinity
    if done < 0:
        raise ValueError("a step is the number of steps done: it cannot be negative")
    if done >= _STEPS:
        raise ValueError("a step is the number of steps done: it must be less than 2**63")
    return done


class ProgressReporter:
    """Sends the latest progress from a thread of its own, at most one message an interval.

    Only the newest report is kept while the agent does not read: training never waits for it.
    Another section is told at once, for it says how long the next progress may take.
    """

    def __init__(self, send: Send, interval: float = _INTERVAL) -> None:
        self._send = send
        self._interval = interval
        self._condition = threading.Condition()
        self._step = 0
        self._metrics: Mapping[str, float] = {}
        self._saved_at = 0.0
        self._base = Section.START  # outside of all sections
        self._sections: dict[int, Section] = {}  # that have been entered, the innermost last
        self._entered = 0
        self._counters: list[Counters] = []
        self._pending = False
        self._urgent = False
        self._closing = False
        self._has_complained = False
        self._thread: threading.Thread | None = None  # started by whoever comes first

    def report(self, step: int, metrics: Mapping[str, float], base: Section = Section.STEP) -> None:
        """Replace what is waiting to be sent. From now on it takes steps, or what `base` says,
        unless it is in a section."""
        with self._condition:
            self._step, self._metrics = step, dict(metrics)
            self._base = base
            self._tell()

    def enter(self, section: Section) -> int:
        """In this section, until `leave` is called with what this returns. Threads may enter and
        leave as they like: the one that was entered last counts."""
        with self._condition:
            self._entered += 1
            self._sections[self._entered] = section
            self._tell(urgent=True)
            return self._entered

    def leave(self, entered: int) -> None:
        """Idempotent."""
        with self._condition:
            if self._sections.pop(entered, None) is not None:
                self._tell(urgent=True)

    def become(self, section: Section) -> None:
        """Outside of all sections it is this one now, until the next report."""
        with self._condition:
            if self._base is not section:
                self._base = section
                self._tell(urgent=True)

    def saved(self, at: float) -> None:
        """There is a complete checkpoint of that time."""
        with self._condition:
            if at > self._saved_at:
                self._saved_at = at
                self._tell(urgent=True)

    def add_counters(self, counters: Counters) -> None:
        """Have `counters()` looked at now and then, and sent as metrics beside the user's own when
        they have changed. It must neither block nor raise."""
        with self._condition:
            self._counters.append(counters)
            self._wake()

    def look(self) -> None:
        """The counters have changed in a way that somebody waits for."""
        with self._condition:
            if self._counters:
                self._tell()

    def close(self, timeout: float) -> None:
        """Send what is waiting; give up after `timeout` seconds. Later reports are dropped."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _tell(self, *, urgent: bool = False) -> None:
        if not self._closing:
            self._pending, self._urgent = True, self._urgent or urgent
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tflease-progress", daemon=True)
            self._thread.start()
        self._condition.notify_all()

    def _run(self) -> None:
        sent: Mapping[str, float] = {}
        while True:
            with self._condition:
                patience = _COUNTERS_INTERVAL if self._counters else None
                self._condition.wait_for(lambda: self._pending or self._closing, patience)
                pending, self._pending, self._urgent = self._pending, False, False
                closing, step, metrics = self._closing, self._step, self._metrics
                saved = {SAVED_AT: self._saved_at} if self._saved_at else {}
                section = [self._base, *self._sections.values()][-1].value
                counters = tuple(self._counters)
            try:
                counted = {name: value for each in counters for name, value in each().items()}
                if pending or counted != sent:
                    sent = counted
                    # The user's come last: of too many the last ones are left out.
                    told = {"step": step, "metrics": {**saved, **counted, **metrics}}
                    self._send({"event": "progress", **told, "section": section})
            except OSError:
                # The agent is gone. Whether that ends the run is not for a progress report to
                # decide; further ones go nowhere.
                closing = True
                with self._condition:
                    self._closing = True
            except Exception as error:  # of this one message; the next may be better
                self._complain(error)
            if closing:
                return
            self._pause()

    def _complain(self, error: Exception) -> None:
        """In the member's log; once, for it may come with every step."""
        if not self._has_complained:
            self._has_complained = True
            text = f"{type(error).__name__}: {error}"[:_MAX_COMPLAINT]
            print(f"tflease: a report of progress could not be sent: {text}", file=sys.stderr)

    def _pause(self) -> None:
        with self._condition:
            least = min(self._interval, _SECTION_INTERVAL)
            self._condition.wait_for(lambda: self._closing, least)
            self._condition.wait_for(lambda: self._closing or self._urgent, self._interval - least)
