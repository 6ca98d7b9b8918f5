"""Members and clients that outlive their coordinator: they come back until it answers again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import ExitReport, RunId
from coordinator.testing import COMPLETED, FakeExecutor, FakeHost

_PAUSE = 0.05
DEADLINE = 20.0

T = TypeVar("T")


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """The first answer, however often the coordinator is away."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await call()
            except CoordinatorUnavailable:
                await asyncio.sleep(_PAUSE)


async def persist_in_thread(call: Callable[[], T]) -> T:
    """The same for a synchronous client."""
    return await persist(lambda: asyncio.to_thread(call))


class PersistentMember:
    """One member from its reservation to its end. As an agent's, its process lives on while the
    coordinator is away, and what was not acknowledged is said again in the next session."""

    def __init__(
        self, address: str, token: str, run_id: RunId, member: str, host: FakeHost | None = None
    ) -> None:
        self.executor = FakeExecutor(address, token, run_id, member, host=host)
        self.generation = 0
        self.sessions = 0

    async def close(self) -> None:
        await self.executor.close()

    async def form(self) -> None:
        """Until the gang has started and ``main_fun`` is entered."""
        await persist(self.executor.reserve)
        await self._say(self.executor.ready)
        start = await self._say(self.executor.started)
        self.generation = start.generation
        await self._say(lambda: self.executor.enter(self.generation))

    async def work(self, steps: int) -> None:
        """Each step is acknowledged."""
        for step in range(1, steps + 1):
            await self._say(lambda at=step: self.executor.progress(at, self.generation))  # type: ignore[misc]

    async def end(self, report: ExitReport = COMPLETED) -> None:
        """``main_fun`` has returned."""
        ended = self.executor.conduct.end(report)
        await self._say(lambda: self.executor.end(ended, self.generation))

    async def attend(self) -> None:
        """A new session."""
        self.sessions += 1
        await self.executor.attend()

    async def _say(self, step: Callable[[], Awaitable[T]]) -> T:
        async def in_a_session() -> T:
            try:
                if self.executor._session is None:
                    await self.attend()
                return await step()
            except CoordinatorUnavailable:
                await self.executor.drop()
                raise

        return await persist(in_a_session)
