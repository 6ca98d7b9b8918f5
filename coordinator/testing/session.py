"""One session of a fake member: numbers what it says, and waits for the acknowledgement."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from coordinator.core.errors import CoordinatorUnavailable, TfleaseError
from coordinator.member_client import (
    Acknowledged,
    Attendance,
    ClaimGpus,
    DumpStack,
    InspectGpus,
    Start,
    Stop,
)
from coordinator.testing.gpu_conduct import GpuConduct


class FakeSession:
    """Says one thing at a time. ``start`` and ``stop`` are the last commands of this session;
    those about GPUs are obeyed at once."""

    def __init__(self, attendance: Attendance, gpus: GpuConduct) -> None:
        self.start: Start | None = None
        self.stop: Stop | None = None
        self.is_asked_for_stack = False
        self._attendance = attendance
        self._gpus = gpus
        self._sequence = 0
        self._acknowledged = -1  # a hello is number 0
        self._over: TfleaseError | None = None
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._obeying: asyncio.Task[None] | None = None
        self._orders: deque[InspectGpus | ClaimGpus] = deque()

    async def open(self, beat_interval: float | None) -> None:
        """Says hello. Beats by itself unless the interval is None."""
        await self._attendance.__aenter__()
        self._listener = asyncio.create_task(self._listen())
        self._obeying = asyncio.create_task(self._obey())
        await self.until(lambda: self._acknowledged >= 0)
        if beat_interval is not None:
            self._heart = asyncio.create_task(self._keep_beating(beat_interval))

    async def close(self) -> None:
        """Without a goodbye."""
        mine = (self._listener, self._heart, self._obeying)
        tasks = [task for task in mine if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._attendance.__aexit__(None, None, None)

    def hush(self) -> None:
        """Beats no more; the connection stays open."""
        if self._heart is not None:
            self._heart.cancel()

    async def say(self, what: Callable[..., Coroutine[Any, Any, None]], *with_: object) -> None:
        """``what`` is a method of ``Attendance``. Returns when it has been acknowledged; raises
        what it was refused with."""
        number = await self.shout(what, *with_)
        await self.until(lambda: self._acknowledged >= number)

    async def shout(self, what: Callable[..., Coroutine[Any, Any, None]], *with_: object) -> int:
        """The same without waiting for an answer; returns the message's number."""
        self._sequence += 1
        number = self._sequence
        await what(self._attendance, number, *with_)
        return number

    async def until(self, condition: Callable[[], bool]) -> None:
        """Raises why the session is over when it is before that."""
        while not condition():
            if self._over is not None:
                raise self._over
            await self._news.wait()

    def _tell_waiting(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _listen(self) -> None:
        try:
            async for command in self._attendance.commands():
                match command:
                    case Acknowledged(sequence=sequence):
                        self._acknowledged = sequence
                    case Start():
                        self.start = command
                    case Stop():
                        self.stop = command
                    case DumpStack():
                        self.is_asked_for_stack = True
                    case InspectGpus() | ClaimGpus():
                        self._orders.append(command)
                self._tell_waiting()
        except TfleaseError as error:
            self._over = error
        else:
            self._over = CoordinatorUnavailable("the coordinator has ended the session")
        self._tell_waiting()

    async def _obey(self) -> None:
        """One order after the other; a task that is cancelled while it writes ends the stream."""
        with suppress(TfleaseError):  # the listener knows why
            while True:
                await self._ordered()
                await self._gpus.obey(self._orders.popleft(), self.shout, self._ordered)

    async def _ordered(self) -> None:
        """Waits until there is something to obey."""
        await self.until(lambda: bool(self._orders))

    async def _keep_beating(self, interval: float) -> None:
        while self._over is None:
            await asyncio.sleep(interval)
            self._sequence += 1
            try:
                await self._attendance.heartbeat(self._sequence, self._gpus.tokens())
            except TfleaseError:
                return  # the listener knows why
