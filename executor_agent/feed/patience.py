"""How a feed's reader waits: it looks up now and then, and says so once when it takes long."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable

_LOOK_INTERVAL = 0.25  # seconds between two looks at whether the member is told to stop
_SAY_AFTER = 60.0  # seconds of waiting that somebody should hear of

_WAITED_STEP = 5.0  # seconds


def told_of(waited: float) -> float:
    """Of so many seconds of waiting."""
    return waited // _WAITED_STEP * _WAITED_STEP


class Patience:
    """The waits of one feed."""

    def __init__(self, feed: str, changed: threading.Condition) -> None:
        self._feed = feed
        self._changed = changed
        self._since: dict[str, float] = {}  # when the wait for that began
        self._waiting = 0  # threads
        self._waited = 0.0  # seconds

    @property
    def is_at_work(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    @property
    def counters(self) -> dict[str, float]:
        """``waited``: seconds of all waits, also of those that go on, and so the sign that whoever
        waits for rows is not stuck (E5). In whole steps: each other value is a message."""
        waited = told_of(self._waited)
        return {"waited": waited} if waited else {}

    def wait(
        self,
        what: str,
        is_ready: Callable[[], bool],
        stopping: Callable[[], bool],
        within: float = math.inf,
    ) -> bool | None:
        """Under the lock. False: told to stop; None: so many seconds have passed with neither.
        Whoever then asks for the same again goes on with the same wait."""
        if is_ready():
            self._since.pop(what, None)
            return True
        self._waiting += 1
        try:
            return self._wait(what, is_ready, stopping, within)
        finally:
            self._waiting -= 1

    def _wait(
        self,
        what: str,
        is_ready: Callable[[], bool],
        stopping: Callable[[], bool],
        within: float,
    ) -> bool | None:
        began = time.monotonic()
        since = self._since.setdefault(what, began)
        while not is_ready():
            if stopping():
                return False
            now = time.monotonic()
            if now - since > _SAY_AFTER:
                self._since[what] = since = math.inf  # said
                print(f"feed {self._feed!r}: still waiting for {what}", file=sys.stderr, flush=True)
            if now - began >= within:
                return None
            self._changed.wait(min(_LOOK_INTERVAL, within))
            self._waited += time.monotonic() - now
        self._since.pop(what, None)  # another thread may have waited for the same
        return True
