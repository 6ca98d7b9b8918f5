"""The watch over what a member's life is tied to: task, daemon, executor, and the task's lifeline.

Owns: pidfds, the polling where the kernel refuses them, the reading end of the lifeline. Must not
decide what a death means. Everything is registered with the sentinel's selector, whose data is a
function that returns the events of a readable descriptor.
"""

from __future__ import annotations

import os
import selectors
from functools import partial

from executor_agent.core.stop_events import AnchorDied, Event, LifelineClosed
from executor_agent.processes import ProcessIdentity, is_running, open_pidfd

_WAIT = 1.0  # seconds; nothing depends on it, a pidfd and the pipe wake the loop
_POLLED_WAIT = 0.25  # the same where an anchor has no pidfd and has to be looked at


class Anchors:
    """Says once of each anchor that it is gone."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._polled: dict[str, ProcessIdentity] = {}

    @property
    def longest_wait(self) -> float:
        """How long the loop may wait before it asks `look` again."""
        return _POLLED_WAIT if self._polled else _WAIT

    def watch(self, name: str, identity: ProcessIdentity) -> list[Event]:
        """Watch exactly this process; the event, if it is gone already."""
        try:
            pidfd = open_pidfd(identity)
        except ProcessLookupError:
            return [AnchorDied(name)]
        if pidfd is None:
            self._polled[name] = identity
        else:
            on_end = partial(self._on_end, pidfd, name)
            self._selector.register(pidfd, selectors.EVENT_READ, on_end)
        return []

    def hold_lifeline(self, fd: int) -> None:
        """Watch the pipe whose only writer is the task."""
        self._selector.register(fd, selectors.EVENT_READ, partial(self._on_lifeline, fd))

    def look(self) -> list[Event]:
        """Look at the anchors that cannot wake us."""
        gone = [name for name, identity in self._polled.items() if not is_running(identity)]
        for name in gone:
            del self._polled[name]
        return [AnchorDied(name) for name in gone]

    def _on_end(self, pidfd: int, name: str) -> list[Event]:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        return [AnchorDied(name)]

    def _on_lifeline(self, fd: int) -> list[Event]:
        if os.read(fd, 4096):
            return []
        self._selector.unregister(fd)
        return [LifelineClosed()]
