"""The members of a run as a gang: what it takes until all of them start, and their start."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from coordinator.core import events, roster
from coordinator.core.durable import Ledger, Records, Tracked
from coordinator.core.durable_values import codec
from coordinator.core.effects import Effect, SendStart
from coordinator.core.gang_leases import GangLeases
from coordinator.core.lease_book import LeaseBook
from coordinator.core.member import Member
from coordinator.core.model import ClusterSpec, RunId, RunSpec
from coordinator.core.transitions import MemberTrigger


class Gang(Tracked):
    """``generation``: the number of cluster specs assembled so far."""

    DURABLE: ClassVar = {"generation": codec(int)}

    def __init__(
        self,
        run_id: RunId,
        spec: RunSpec,
        members: Collection[Member],
        book: LeaseBook,
        ledger: Ledger | None = None,
    ) -> None:
        self.track(ledger, "gang", run_id)
        self._run_id = run_id
        self._members = tuple(members)
        self._cluster_spec: ClusterSpec = {}
        self.generation = 0
        self.leases = GangLeases(run_id, spec, members, book, ledger)

    def restore(self, records: Records) -> None:
        """After the members and the book."""
        records.load(self)
        self.leases.restore(records)
        if self.leases.has_started:
            self._assemble()

    def forget(self) -> None:
        super().forget()
        self.leases.forget()

    def problem(self) -> str:
        """Why these members cannot work together, or ""."""
        return roster.address_problem(member.view() for member in self._members)

    def start(self, now: float) -> list[Effect]:
        """Everybody is told the cluster spec, the same object."""
        self.generation += 1
        self.leases.has_started = True
        self._assemble()
        for member in self._members:
            member.move(MemberTrigger.START, now)
            member.commands = ()  # what it was told of GPUs counts no more
        return [self.start_command(member) for member in self._members]

    def disband(self) -> None:
        """All members have ended; others are to come in their places."""
        self._cluster_spec = {}
        self.leases.renew_all()

    def rejoin(self, member: Member, now: float) -> SendStart:
        """A member starts again alone: the others have never stopped."""
        member.move(MemberTrigger.START, now)
        member.commands = ()
        return self.start_command(member)

    def _assemble(self) -> None:
        self._cluster_spec = roster.cluster_spec(
            (each.id, each.endpoint) for each in self._members if each.endpoint is not None
        )

    def start_command(self, member: Member) -> SendStart:
        """Also to be said again: it is idempotent."""
        assert member.incarnation is not None
        spec = self._cluster_spec
        return SendStart(self._run_id, member.id, member.incarnation, self.generation, spec)

    def hear_of_gpus(
        self, member: Member, event: events.GpusInspected | events.GpusClaimed, now: float
    ) -> list[Effect]:
        """An agent has looked at GPUs, or has claimed them."""
        assert member.executor is not None
        if isinstance(event, events.GpusInspected):
            self.leases.inspected(member.executor, event, now)
            return []
        return self.leases.claimed(member, event, now)
