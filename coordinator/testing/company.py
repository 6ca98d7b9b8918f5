"""Who else is about while a fake executor lives: the peers that its script brings along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from coordinator.core.errors import CoordinatorUnavailable, RunOver, Unauthenticated
from coordinator.testing.script import Script

if TYPE_CHECKING:
    from coordinator.testing.executor import FakeExecutor

_ATTEMPTS = 10
"""At one refusal: gRPC's client loses a status now and then, when its write meets the end of the
call, and has to ask again."""


@asynccontextmanager
async def company_of(executor: FakeExecutor, script: Script) -> AsyncIterator[None]:
    """From the moment when the executor has its slot. On leaving the others are gone, each
    duplicate has been answered at least once, and each impostor has had all its answers.

    Sessions that are half open, and half messages, stay until the executor is closed: a peer that
    froze does not go away.
    """
    for _ in range(script.half_open):
        executor.open_half()
    for number in range(script.half_messages):
        await executor.send_half(stranger=number % 2 == 1)
    async with AsyncExitStack() as stack:
        seconds = [
            await stack.enter_async_context(executor.copy()) for _ in range(script.duplicates)
        ]
        liars = [
            await stack.enter_async_context(executor.copy(token="forged"))
            for _ in range(script.impostors)
        ]
        delays = await asyncio.gather(*(_claim(executor, second) for second in seconds))
        claims = [
            asyncio.create_task(_keep_claiming(executor, second, delay, script.stand_by_delay))
            for second, delay in zip(seconds, delays, strict=True)
        ]
        lies = [asyncio.create_task(_impersonate(executor, liar)) for liar in liars]
        try:
            yield
            await asyncio.gather(*lies)
        finally:
            for task in (*claims, *lies):
                task.cancel()
            await asyncio.gather(*claims, *lies, return_exceptions=True)


async def _claim(executor: FakeExecutor, second: FakeExecutor) -> float | None:
    """One claim of a duplicate; after how many seconds it may ask again. None: never."""
    try:
        answer = await second.reserve(attempts=_ATTEMPTS)
    except RunOver:
        return None
    if answer.is_granted:
        executor.tally.usurped += 1
        return None
    executor.tally.stood_by += 1
    return answer.retry_delay


async def _keep_claiming(
    executor: FakeExecutor, second: FakeExecutor, told: float | None, delay: float | None
) -> None:
    while told is not None:
        await asyncio.sleep(told if delay is None else delay)
        told = await _claim(executor, second)


async def _impersonate(executor: FakeExecutor, liar: FakeExecutor) -> None:
    for claim in (liar.reserve, liar.attend):
        for _ in range(_ATTEMPTS):
            try:
                await claim()
            except Unauthenticated:
                executor.tally.refused += 1
            except CoordinatorUnavailable:
                continue
            else:
                executor.tally.admitted += 1
            break
