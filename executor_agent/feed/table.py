"""The feeds of one worker by name."""

from __future__ import annotations

import threading
from collections.abc import Callable

from executor_agent.feed.inbox import Feed


class FeedTable:
    """Feeds come to be when somebody names them: the consumer, or `cluster.train`."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        self._closed: str | None = None

    def __getitem__(self, name: str) -> Feed:
        with self._lock:
            if name not in self._feeds:
                self._feeds[name] = Feed(name, self._tell)
                if self._closed is not None:
                    self._feeds[name].close(self._closed)
            return self._feeds[name]

    def counters(self) -> dict[str, float]:
        """By ``<name>/<what>``; see ``Feed.counters``."""
        with self._lock:
            feeds = list(self._feeds.items())
        return {
            f"{name}/{what}": value
            for name, feed in feeds
            for what, value in feed.counters().items()
        }

    @property
    def is_waiting(self) -> bool:
        """Whether a consumer waits for rows, or for its train."""
        with self._lock:
            return any(feed.patience.is_at_work for feed in self._feeds.values())

    def close(self, reason: str) -> None:
        """All of them, and those that are named later."""
        with self._lock:
            if self._closed is None:
                self._closed = reason
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.close(reason)
