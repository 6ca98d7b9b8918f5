"""The orderly end of a coordinator's process: why it ends, and the end of its runs before it.

Shared by the embedded coordinator and the daemon.
"""

from __future__ import annotations

import asyncio
import logging

from coordinator.core import events
from coordinator.core.ending import stop_bound
from coordinator.engine import Engine

_log = logging.getLogger("tflease.coordinator")


class Ending:
    """Why the process should end; the first reason stays."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self, reason: str) -> None:
        """From a callback of the loop; it only records."""
        if self._reason is None:
            self._reason = reason
        self._asked.set()

    def insist(self, reason: str) -> None:
        """As ``ask``; whoever says it twice is in a hurry."""
        if self._asked.is_set():
            self.hurried.set()
        self.ask(reason)

    async def wait(self) -> str:
        """Waits until somebody has asked; why."""
        await self._asked.wait()
        return self._reason or ""


async def stop_runs(engine: Engine, reason: str, hurried: asyncio.Event | None = None) -> None:
    """On return every run has ended, or had the time to; that is logged. When ``hurried`` is set
    nobody gets a grace any more."""
    longest = 0.0
    for view in engine.views():
        if not view.phase.is_terminal:
            longest = max(longest, *view.spec.grace.values())
            engine.feed(events.OwnerLost(view.run_id, reason))
    try:
        async with asyncio.timeout(stop_bound(longest)) as patience, asyncio.TaskGroup() as group:
            hurrying = group.create_task(_hurry(engine, reason, hurried, patience))
            await engine.all_ended()
            hurrying.cancel()
    except TimeoutError:
        _log.error("members did not end in time; their agents stop them by themselves")


async def _hurry(
    engine: Engine, reason: str, hurried: asyncio.Event | None, patience: asyncio.Timeout
) -> None:
    if hurried is None:
        return
    await hurried.wait()
    for view in engine.views():
        if not view.phase.is_terminal:
            engine.feed(events.StopRequested(view.run_id, reason, grace=0.0))
    soon = asyncio.get_running_loop().time() + stop_bound(0.0)
    patience.reschedule(min(soon, patience.when() or soon))
