"""All members of a run, played together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType

from coordinator.core import roster
from coordinator.core.access import ClientTls
from coordinator.core.model import ExitReport, Roles, RunId, RunSpec, RunView
from coordinator.member_client import ReservationClient
from coordinator.testing.clock import ManualClock
from coordinator.testing.executor import FakeExecutor
from coordinator.testing.gates import Gates
from coordinator.testing.host import FakeHost
from coordinator.testing.script import Script
from coordinator.testing.serving import Serving

BEAT_INTERVAL = 3.0
"""Seconds of a manual clock between two beats: the default of a run."""


class FakeGang:
    """One fake executor for each slot of a run; ``gang["worker:0"]`` is one of them.

    ::

        roles = Roles(worker=2)
        run_id = coordinator.create_run(RunSpec(roles))
        async with FakeGang(coordinator.address, coordinator.token, run_id, roles) as gang:
            await gang.form()                     # all have the cluster spec
            await gang.enter()                    # all are in main_fun
            await gang["worker:0"].end(COMPLETED)

    ``hosts``: where the members run, and with which GPUs: one host for all, or by member. With
    ``beating=False`` nobody beats by itself: for tests with a ``ManualClock``. Leaving drops
    every connection. All share one connection to the coordinator, and the ``gates`` that their
    scripts wait at.
    """

    def __init__(
        self,
        address: str,
        token: str,
        run_id: RunId,
        roles: Roles,
        *,
        beating: bool = True,
        python_version: str = "",
        hosts: FakeHost | Mapping[str, FakeHost] | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        self.run_id = run_id
        self.gates = Gates()
        self._beating = beating
        self._client = ReservationClient(address, token, tls)
        self.members = {
            str(member): FakeExecutor(
                address,
                token,
                run_id,
                member,
                python_version=python_version,
                host=hosts.get(str(member)) if isinstance(hosts, Mapping) else hosts,
                client=self._client,
                gates=self.gates,
                tls=tls,
            )
            for member in roster.members(roles)
        }

    def __getitem__(self, member: str) -> FakeExecutor:
        return self.members[member]

    def __iter__(self) -> Iterator[FakeExecutor]:
        return iter(self.members.values())

    async def __aenter__(self) -> FakeGang:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drops every connection. Idempotent."""
        await asyncio.gather(*(executor.close() for executor in self))
        await self._client.close()

    async def form(self, *, without: Collection[str] = ()) -> None:
        """All but ``without`` reserve, attend and are ready. On return all have the cluster
        spec, unless somebody was left out."""
        async with asyncio.TaskGroup() as group:
            for name, executor in self.members.items():
                if name not in without:
                    group.create_task(self._get_ready(executor))
        if not without:
            for executor in self:
                await executor.started()

    async def _get_ready(self, executor: FakeExecutor) -> None:
        await executor.reserve()
        await executor.attend(beating=self._beating)
        await executor.ready()

    async def enter(self) -> None:
        """All enter ``main_fun``."""
        async with asyncio.TaskGroup() as group:
            for executor in self:
                group.create_task(executor.enter())

    async def finish(self) -> None:
        """From ``enter`` to a good end: those who train complete, the others obey their stop."""
        async with asyncio.TaskGroup() as group:
            for executor in self:
                group.create_task(executor.work())

    async def beat(self, *, without: Collection[str] = ()) -> None:
        """One heartbeat of everybody but ``without``."""
        async with asyncio.TaskGroup() as group:
            for name, executor in self.members.items():
                if name not in without:
                    group.create_task(executor.beat())

    async def pass_time(
        self, clock: ManualClock, seconds: float, *, silent: Collection[str] = ()
    ) -> None:
        """Time passes on a manual clock while everybody but ``silent`` beats."""
        end = clock() + seconds
        while clock() < end:
            clock.advance(min(BEAT_INTERVAL, end - clock()))
            await self.beat(without=silent)

    async def live(
        self, scripts: Mapping[str, Script] | None = None
    ) -> dict[str, ExitReport | None]:
        """All live by their scripts, by default as good members of their roles. Returns how
        each ended (``FakeExecutor.live``) when all have."""
        scripts = scripts or {}
        unknown = scripts.keys() - self.members.keys()
        if unknown:
            raise ValueError(f"scripts for members that do not exist: {', '.join(unknown)}")
        async with asyncio.TaskGroup() as group:
            lives = {
                name: group.create_task(executor.live(scripts.get(name)))
                for name, executor in self.members.items()
            }
        return {name: life.result() for name, life in lives.items()}


async def drive(
    coordinator: Serving,
    spec: RunSpec,
    scripts: Mapping[str, Script] | None = None,
    *,
    hosts: FakeHost | Mapping[str, FakeHost] | None = None,
) -> RunView:
    """Creates a run, plays its members to the end, and returns how it ended::

        run = await drive(coordinator, RunSpec(Roles(worker=2)), {"worker:1": Script(steps=3)})

    A member that dies or falls silent costs the run's ``fence_timeout`` and more: use a
    ``FakeGang`` with a ``ManualClock`` for those.
    """
    run_id = coordinator.create_run(spec)
    async with FakeGang(
        coordinator.address, coordinator.token, run_id, spec.roles, hosts=hosts
    ) as gang:
        await gang.live(scripts)
        return await coordinator.ended(run_id)
