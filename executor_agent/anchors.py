"""The watch over what a member's life is tied to: task, daemon, executor, and the task's lifeline.

Owns: pidfds, the polling where the kernel refuses them, the reading end of the lifeline, and the
sentinel's voice to a task that wants to hand over. Must not decide what a death means. Everything
is registered with the sentinel's selector, whose data is a function that returns the events of a
readable descriptor.
"""

from __future__ import annotations

import json
import os
import selectors
from contextlib import suppress
from functools import partial

from executor_agent.core.stop_events import AnchorDied, Event, HandOverAsked, LifelineClosed
from executor_agent.core.supervision import HAND_OVER, TAKEN_OVER
from executor_agent.processes import ProcessIdentity, is_running, my_identity, open_pidfd

_WAIT = 1.0  # seconds; nothing depends on it, a pidfd and the pipe wake the loop
_POLLED_WAIT = 0.25  # the same where an anchor has no pidfd and has to be looked at


class Anchors:
    """Says once of each anchor that it is gone."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._polled: dict[str, ProcessIdentity] = {}
        self._pidfds: dict[str, int] = {}
        self._lifeline: int | None = None
        self._voice: int | None = None

    @property
    def longest_wait(self) -> float:
        """How long the loop may wait before it asks `look` again."""
        return _POLLED_WAIT if self._polled else _WAIT

    def watch(self, name: str, identity: ProcessIdentity) -> list[Event]:
        """Watch exactly this process; the event, if it is gone already."""
        try:
            pidfd = open_pidfd(identity)
        except ProcessLookupError:
            return [AnchorDied(name, "its absence at our start")]
        if pidfd is None:
            self._polled[name] = identity
        else:
            self._pidfds[name] = pidfd
            on_end = partial(self._on_end, name)
            self._selector.register(pidfd, selectors.EVENT_READ, on_end)
        return []

    def hold_lifeline(self, fd: int) -> None:
        """Watch the pipe whose only writer is the task."""
        self._lifeline = fd
        self._selector.register(fd, selectors.EVENT_READ, self._on_lifeline)

    def introduce(self, voice: int) -> None:
        """Tell a task whose child we are not who we are. It may be gone; the lifeline says so."""
        self._voice = voice
        me = my_identity()
        with suppress(OSError):
            os.write(voice, json.dumps([me.pid, me.create_time]).encode() + b"\n")

    def take_over(self) -> list[Event]:
        """The executor alone is the anchor from here on. Once the task has the answer it may end
        at any moment, so nothing of it is watched by the next turn; until then, and so in this
        turn, its death still counts."""
        if self._voice is None:
            return []  # it was not for this that we were started
        try:
            os.write(self._voice, TAKEN_OVER)
        except OSError:
            return [LifelineClosed()]
        for name in ("task", "daemon"):
            self._polled.pop(name, None)
            if name in self._pidfds:
                self._drop(self._pidfds.pop(name))
        if self._lifeline is not None:
            self._drop(self._lifeline)
        os.close(self._voice)
        self._lifeline = self._voice = None
        return []

    def look(self) -> list[Event]:
        """Look at the anchors that cannot wake us."""
        gone = [name for name, identity in self._polled.items() if not is_running(identity)]
        for name in gone:
            del self._polled[name]
        return [AnchorDied(name, "polling") for name in gone]

    def _on_end(self, name: str) -> list[Event]:
        self._drop(self._pidfds.pop(name))
        return [AnchorDied(name)]

    def _on_lifeline(self) -> list[Event]:
        if self._lifeline is None:
            return []
        said = os.read(self._lifeline, 4096)
        if said:
            return [HandOverAsked()] if said == HAND_OVER else []
        self._drop(self._lifeline)
        self._lifeline = None
        return [LifelineClosed()]

    def _drop(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)
