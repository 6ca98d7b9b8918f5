"""The orderly end of a coordinator's process: why it ends, and the end of its runs before it.

Shared by the embedded coordinator and the daemon.
"""

from __future__ import annotations

import asyncio

from coordinator.core import events
from coordinator.core.completion import STOP_STAGES
from coordinator.core.liveness import STOP_BOUND
from coordinator.engine import Engine


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


def stop_bound(longest_grace: float) -> float:
    """Seconds after which a run that was told to stop has ended, if its hosts live: the stages
    come one after the other."""
    return len(STOP_STAGES) * (longest_grace + STOP_BOUND)


async def stop_runs(engine: Engine, reason: str, hurried: asyncio.Event | None = None) -> bool:
    """On return every run has ended (True), or had the time to. When ``hurried`` is set nobody
    gets a grace any more."""
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
        return False
    return True


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
