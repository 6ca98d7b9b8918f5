"""A fake machine with GPUs: to fake executors what locks and NVML are to real agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from coordinator.core.gpu import GpuOffer, GpuSight, LeaseToken

PRODUCT = "Fake GPU"
_MEMORY = 16 * 2**30


class FakeHost:
    """Its GPUs, by UUID, and who uses them. Executors of several runs, and of several
    coordinators, may share one: it lets nobody claim what another has::

        host = FakeHost("GPU-a", "GPU-b")
        host.occupy("GPU-a", "somebody's notebook", 4711)     # unknown to every coordinator
        async with FakeGang(address, token, run_id, roles, hosts=host) as gang:
            ...
            host.vacate("GPU-a")    # whoever has to look whether it is free sees it at once

    In one process and one event loop. ``news`` is set, and replaced by another event, whenever
    anybody has come or gone. The files and the NVML of a host that real agents look at
    are ``FakeGpus``.
    """

    def __init__(self, *uuids: str, name: str = "fake-host") -> None:
        self.name = name
        self.uuids = uuids
        self.users: dict[str, str] = {}
        self._pids: dict[str, tuple[int, ...]] = {}
        self._last: dict[tuple[str, str], int] = {}  # by GPU and coordinator
        self.news = asyncio.Event()

    def occupy(self, uuid: str, who: str, *pids: int) -> None:
        """Somebody uses it without asking anybody."""
        self.users[uuid], self._pids[uuid] = who, pids
        self._tell()

    def vacate(self, *uuids: str) -> None:
        """Whoever uses them does so no longer: the kernel has freed the claim."""
        for uuid in uuids:
            self.users.pop(uuid, None)
            self._pids.pop(uuid, None)
        self._tell()

    def let_go(self, who: str) -> None:
        """Whatever ``who`` has."""
        self.vacate(*(uuid for uuid, user in self.users.items() if user == who))

    def offer(self) -> GpuOffer:
        """What an agent tells with its reservation."""
        return GpuOffer(self.look(self.uuids))

    def look(self, uuids: Iterable[str]) -> tuple[GpuSight, ...]:
        """Each as it is now."""
        return tuple(map(self._sight, uuids))

    def _sight(self, uuid: str) -> GpuSight:
        user = self.users.get(uuid, "")
        return GpuSight(
            uuid=uuid,
            is_free=not user,
            index=self.uuids.index(uuid) if uuid in self.uuids else -1,
            name=PRODUCT,
            memory_total=_MEMORY,
            holder=user,
            pids=self._pids.get(uuid, ()),
        )

    def inspect(
        self, uuids: Iterable[str], coordinator_id: str, number: int
    ) -> tuple[GpuSight, ...]:
        """As ``look``; those that are free cannot be claimed any more with an older token of that
        coordinator."""
        sights = self.look(uuids)
        for sight in sights:
            if sight.is_free:
                self._remember(sight.uuid, LeaseToken(coordinator_id, number))
        return sights

    def claim(self, grants: Mapping[str, LeaseToken], who: str) -> tuple[GpuSight, ...]:
        """Exactly these for ``who``, who lets go of all others; those that were refused, and then
        it has none. Refused is what another uses, and a token that is not the latest."""
        mine = {uuid for uuid, user in self.users.items() if user == who}
        self.vacate(*mine.difference(grants))
        refused = [
            self._refusal(uuid, token)
            for uuid, token in grants.items()
            if uuid not in mine and (uuid in self.users or not self._is_new(uuid, token))
        ]
        if refused:
            self.let_go(who)
            return tuple(refused)
        for uuid, token in grants.items():
            self.users[uuid] = who
            self._remember(uuid, token)
        self._tell()
        return ()

    def _refusal(self, uuid: str, token: LeaseToken) -> GpuSight:
        sight = self._sight(uuid)
        if not sight.is_free:
            return sight
        holder = f"nobody, but {token} is not the latest token"
        return GpuSight(uuid, is_free=False, name=PRODUCT, holder=holder)

    def _is_new(self, uuid: str, token: LeaseToken) -> bool:
        return token.number > self._last.get((uuid, token.coordinator_id), 0)

    def _remember(self, uuid: str, token: LeaseToken) -> None:
        key = (uuid, token.coordinator_id)
        self._last[key] = max(token.number, self._last.get(key, 0))

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()
