"""GPUs for tests of the core: how they look, who wants them, and a run's agents that claim them.

As in ``scene``, every event is followed by the machine's own check of its invariants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.core import events
from coordinator.core.effects import ClaimGpus, Effect, InspectGpus, Noted
from coordinator.core.gpu import GpuOffer, GpuSight, LeaseRequest, LeaseState, LeaseView, Want
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    Roles,
    RunId,
    RunSpec,
)
from tests.coordinator.core.scene import Scene, executor, slot

TTL = 100.0


def free(uuid: str, **facts: Any) -> GpuSight:
    return GpuSight(uuid, True, name="Test GPU", **facts)


def busy(uuid: str, holder: str = "mallory", *pids: int) -> GpuSight:
    return GpuSight(uuid, False, name="Test GPU", holder=holder, pids=pids)


def request(
    name: str,
    wants: Mapping[str, tuple[str, int]] | None = None,
    *,
    ttl: float = TTL,
    patience: float = float("inf"),
) -> LeaseRequest:
    """``wants``: {"worker:0": ("a b", 2)} is two of a and b. By default one, of a."""
    asked = wants or {"worker:0": ("a", 1)}
    return LeaseRequest(
        name,
        f"run {name}",
        tuple(Want(who, tuple(uuids.split()), count) for who, (uuids, count) in asked.items()),
        ttl,
        patience,
    )


class GpuScene(Scene):
    """A run whose workers want GPUs; ``offers``: the UUIDs that each slot can see, by "worker:0",
    all of them free and on one host unless a test says otherwise."""

    def __init__(self, offers: Mapping[str, str], roles: Roles | None = None, **spec: Any) -> None:
        self.offers = {name: uuids.split() for name, uuids in offers.items()}
        asked = roles or Roles(worker=len(offers))
        super().__init__(asked, **{"gpus": Roles(worker=1), **spec})

    def gpu(self, uuid: str) -> LeaseView:
        return self.machine.book.view(uuid)

    def states(self) -> dict[str, LeaseState]:
        return {view.uuid: view.state for view in self.machine.book.views()}

    def reserve(
        self,
        which: str | MemberId,
        attempt: str = "",
        *,
        on: ExecutorInfo | None = None,
        endpoint: Endpoint | None = None,
        sights: Iterable[GpuSight] | None = None,
    ) -> tuple[Effect, ...]:
        self.attempts[slot(which)] = IncarnationId(attempt or self.attempt(which))
        incarnation = self.attempts[slot(which)]
        port = self.ports.setdefault(incarnation, 2000 + len(self.ports))
        seen = map(free, self.offers.get(str(which), ())) if sights is None else sights
        return self.handle(
            events.ReservationRequested(
                self.run_id,
                slot(which),
                incarnation,
                on or executor(),
                endpoint or Endpoint("10.0.0.1", port),
                GpuOffer(tuple(seen)),
            )
        )

    def all_ready(self) -> list[Effect]:
        """The whole gang, up to its claims."""
        self.take_slots()
        return [effect for one in self.slots for effect in self.ready(one)]

    def claimed(
        self, command: ClaimGpus, *refused: GpuSight, attempt: str = ""
    ) -> tuple[Effect, ...]:
        return self.say(
            events.GpusClaimed, command.member, command.number, refused, attempt=attempt
        )

    def inspected(self, command: InspectGpus, *sights: GpuSight) -> tuple[Effect, ...]:
        return self.say(events.GpusInspected, command.member, command.number, sights)

    def start(self) -> dict[str, ClaimGpus]:
        """The gang forms, claims, starts and enters ``main_fun``."""
        commands = claims(self.all_ready())
        for command in commands.values():
            self.claimed(command)
        for one in self.slots:
            self.enter(one)
        return commands

    def another(self, name: str, roles: Roles, **spec: Any) -> RunId:
        """A run beside this one, to be spoken for with ``handle``."""
        run_id = RunId(name)
        asked = RunSpec(roles=roles, **{"gpus": Roles(worker=1), "name": name, **spec})
        self.handle(events.RunCreated(run_id, asked))
        return run_id


def claims(effects: Iterable[Effect]) -> dict[str, ClaimGpus]:
    """The claims that members are told to make, the last to each."""
    return {str(each.member): each for each in effects if isinstance(each, ClaimGpus)}


def inspections(effects: Iterable[Effect]) -> list[InspectGpus]:
    return [each for each in effects if isinstance(each, InspectGpus)]


def noted(effects: Iterable[Effect]) -> list[str]:
    return [each.text for each in effects if isinstance(each, Noted)]
