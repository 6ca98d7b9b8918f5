"""A fake executor's life by its script, from the reservation to the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from coordinator.core.errors import RunOver
from coordinator.core.model import ExitReport
from coordinator.testing.company import company_of
from coordinator.testing.script import STOPPED, Moment, Script

if TYPE_CHECKING:
    from coordinator.testing.executor import FakeExecutor

_ATTEMPTS = 6
"""At one reservation, on a machine that is too busy to answer within the time of a call."""


class Life:
    """Takes the steps of one executor in the order and manner of a script."""

    def __init__(self, executor: FakeExecutor, script: Script) -> None:
        self._executor = executor
        self._script = script

    async def live(self) -> ExitReport | None:
        """See ``FakeExecutor.live``."""
        self._executor.conduct.follow(self._script)
        try:
            await self._hold_slot()
            async with company_of(self._executor, self._script):
                return await self._attend()
        except RunOver:
            return None

    async def work(self) -> ExitReport | None:
        """See ``FakeExecutor.work``."""
        self._executor.conduct.follow(self._script)
        executor, script = self._executor, self._script
        await self._lie()
        for step in range(1, script.steps + 1):
            await executor.progress(step)
        until = script.works_until
        event = executor.gates.event(until) if until is not None else None
        if script.floods:
            executor.tally.flooded += await executor.flood(script.floods, event)
        if script.serves:
            await executor.told_to_stop()
        elif event is not None:
            await self._until_set(event)
        if executor.stop is not None:
            return await self._obey()
        report = await executor.end(script.report)
        await executor.leave()
        return report

    async def _hold_slot(self) -> None:
        executor, script = self._executor, self._script
        if script.joins_after is not None:
            await executor.gates.event(script.joins_after).wait()
        await asyncio.sleep(script.joins_after_seconds)
        while not (answer := await executor.reserve(attempts=_ATTEMPTS)).is_granted:
            executor.tally.stood_by += 1
            wait = script.stand_by_delay
            await asyncio.sleep(answer.retry_delay if wait is None else wait)
        executor.moments[Moment.RESERVED] = time.monotonic()

    async def _attend(self) -> ExitReport | None:
        executor = self._executor
        steps: dict[Moment, Callable[[], Coroutine[Any, Any, object]]] = {
            Moment.ATTENDING: executor.attend,
            Moment.READY: executor.ready,
            Moment.STARTED: executor.started_or_stopped,
            Moment.ENTERED: self._enter,
        }
        if await self._is_gone_at(Moment.RESERVED):
            return None
        for moment, step in steps.items():
            await step()
            if moment is not Moment.STARTED or executor.start is not None:
                executor.moments[moment] = time.monotonic()
            if await self._is_gone_at(moment):
                return None
            if executor.stop is not None:
                return await self._obey()
        return await self.work()

    async def _enter(self) -> None:
        await self._lie()
        await self._executor.enter()

    async def _lie(self) -> None:
        for offset in self._script.wrong_generations:
            self._executor.tally.lies += await self._executor.lie(offset)

    async def _is_gone_at(self, moment: Moment) -> bool:
        if self._script.dies_at is moment:
            await self._executor.drop()
        if self._script.silent_from is moment:
            self._executor.hush()
        return moment in (self._script.dies_at, self._script.silent_from)

    async def _until_set(self, event: asyncio.Event) -> None:
        """Or until told to stop."""
        told = self._executor.told_to_stop()
        waits = {asyncio.create_task(event.wait()), asyncio.create_task(told)}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    async def _obey(self) -> ExitReport | None:
        if not self._script.obeys_stop:
            return None
        report = await self._executor.end(STOPPED)
        await self._executor.leave()
        return report
