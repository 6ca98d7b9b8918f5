"""Gates: points at which scripts wait, by name, until the test opens them."""

from __future__ import annotations

import asyncio


class Gates:
    """Events by name. Names travel to other processes; an ``asyncio.Event`` cannot.

    ::

        living = asyncio.create_task(gang.live({"worker:1": Script(joins_after="late")}))
        ...
        gang.gates.open("late")

    A gate that nobody waits for yet may be opened; it stays open.
    """

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def open(self, name: str) -> None:
        """Lets everybody through who waits there, now and later."""
        self.event(name).set()

    def event(self, gate: asyncio.Event | str) -> asyncio.Event:
        """The event behind a name; an event is its own."""
        if isinstance(gate, asyncio.Event):
            return gate
        return self._events.setdefault(gate, asyncio.Event())
