"""Feeds that have been filled, in a gang that is restarted after that.

The next generation's ``main_fun`` asks for them as the first one's did, and nobody will fill them:
each is told to be over, so that its dataset is an empty one and the program comes to its end.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from coordinator.core.model import MemberPhase, RunPhase, RunView
from coordinator.spark.feed import consumers
from coordinator.spark.feed.watch import is_in_trouble

if TYPE_CHECKING:
    from coordinator.spark.feed.feeding import Feeding

_log = logging.getLogger("tflease")

_INTERVAL = 0.5  # seconds between two looks
_TIMEOUT = 30.0  # for the members to hear of it


class FinishedTrains:
    """Of one run. Thread-safe."""

    def __init__(self, feeding: Feeding) -> None:
        self._feeding = feeding
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}  # feed -> the generation that has heard of it
        self._thread: threading.Thread | None = None

    def has_opened(self, feed: str, generation: int) -> None:
        """A train of the feed is open in this generation, or is told to be over."""
        with self._lock:
            self._told[feed] = max(generation, self._told.get(feed, 0))

    def watch(self) -> None:
        """From now on, to the end of the run; on a thread of Spark's."""
        with self._lock:
            if self._thread is not None:
                return
            self._thread = self._feeding.gateway.thread(self._watch)
            self._thread.daemon = True
        try:
            self._thread.start()
        except Exception as error:  # PySpark asserts that there is a context
            _log.debug("finished feeds are not watched: %r", error)

    def _watch(self) -> None:
        session = self._feeding.session
        while session.lost is None:
            run = session.view
            if is_in_trouble(run):
                return
            if _is_at_work(run):
                self._tell(run.generation)
            # Nothing to wait for in particular: most looks find nothing to do.
            session.wait_for(is_in_trouble, _INTERVAL)

    def _tell(self, generation: int) -> None:
        for feed in self._feeding.finished_feeds():
            with self._lock:
                is_told = self._told.get(feed, 0) >= generation
                self._told[feed] = max(generation, self._told.get(feed, 0))
            if not is_told:
                try:
                    self._say_over(feed)
                except Exception as error:  # the gang is restarted again, most likely
                    _log.debug("feed %r was not told to be over: %s", feed, error)

    def _say_over(self, feed: str) -> None:
        run, number = self._feeding.session.view, self._feeding.next_number(feed)
        workers = [each.to_json() for each in consumers.endpoints(run)]
        request = {"call": "open", "feed": feed, "train": number, "epochs": 0, "workers": workers}
        request |= {"first": 1, "earlier": self._feeding.earlier(feed), "over": True}
        self._feeding.control(run).call(request, _TIMEOUT, (f"tflease-{run.run_id}",))


def _is_at_work(run: RunView) -> bool:
    ready = (MemberPhase.RUNNING, MemberPhase.EXITED, MemberPhase.STOPPED)
    return run.phase is RunPhase.RUNNING and all(each.phase in ready for each in run.members)
