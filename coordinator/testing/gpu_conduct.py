"""What a fake executor does about GPUs: as the agent, without a process that would use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from coordinator.core.gpu import NO_GPUS, GpuOffer, LeaseToken
from coordinator.core.model import ExitReport
from coordinator.member_client import Attendance, ClaimGpus, InspectGpus
from coordinator.testing.host import FakeHost
from coordinator.testing.script import Script

Shout = Callable[..., Coroutine[Any, Any, int]]
"""``FakeSession.shout``."""


class GpuConduct:
    """Of one executor, over all its sessions. ``held``: what it has claimed, and with which
    lease. Cooperative, unless told otherwise by a script."""

    def __init__(self, who: str, host: FakeHost | None) -> None:
        self.host = host
        self.held: dict[str, LeaseToken] = {}
        self._who = who
        self._script = Script()

    def follow(self, script: Script) -> None:
        """From now on. The script's own GPUs are those of a host that it shares with nobody."""
        self._script = script
        if script.gpus and self.host is None:
            self.host = FakeHost(*script.gpus)

    def offer(self) -> GpuOffer:
        """For the reservation."""
        return self.host.offer() if self.host is not None else NO_GPUS

    def tokens(self) -> tuple[LeaseToken, ...]:
        """For a beat."""
        return tuple(self.held.values()) if self._script.renews_gpus else ()

    async def obey(
        self,
        order: InspectGpus | ClaimGpus,
        shout: Shout,
        ordered: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Until the answer is final: an inspection goes on until all are free, or ``ordered``
        returns, because there is another order."""
        if self.host is None or not self._script.answers_for_gpus:
            return
        if isinstance(order, ClaimGpus):
            refused = self.host.claim(order.grants, self._who)
            self.held = {} if refused else dict(order.grants)
            await shout(Attendance.gpus_claimed, order.number, refused)
            return
        superseded = asyncio.create_task(ordered())
        try:
            await self._inspect(self.host, order, shout, superseded)
        finally:
            superseded.cancel()
            await asyncio.gather(superseded, return_exceptions=True)

    async def _inspect(
        self, host: FakeHost, order: InspectGpus, shout: Shout, superseded: asyncio.Task[None]
    ) -> None:
        told = None
        while not superseded.done():
            news = host.news
            seen = host.inspect(order.uuids, order.coordinator_id, order.number)
            if seen != told:
                await shout(Attendance.gpus_inspected, order.number, seen)
            if all(sight.is_free for sight in seen):
                return
            told = seen
            changed = asyncio.create_task(news.wait())
            try:
                await asyncio.wait({changed, superseded}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()

    def end(self, report: ExitReport) -> ExitReport:
        """The process has ended: the report with how its GPUs look since."""
        if self.host is None or not self.held:
            return report
        if not self._script.keeps_gpus:
            self.host.let_go(self._who)
        sights = self.host.look(self.held)
        self.held = {}
        return replace(report, gpus=report.gpus or sights)
