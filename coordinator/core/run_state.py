"""What one run is at any moment, without what happens to it (``run``): its parts, its picture for
others, its next deadline, and how it comes back after a restart."""

from __future__ import annotations

from typing import ClassVar, Self

from coordinator.core import completion, invariants, liveness, roster, stalls
from coordinator.core.durable import COME_BACK, Constant, Ledger, Records, Tracked
from coordinator.core.durable_values import Instant, codec
from coordinator.core.effects import Effect, Restarted, RunChanged
from coordinator.core.ending import Ending, Kind
from coordinator.core.gang import Gang
from coordinator.core.holdout import Holdout
from coordinator.core.lease_book import LeaseBook
from coordinator.core.member import Member
from coordinator.core.model import (
    Cause,
    Failure,
    MemberId,
    MemberPhase,
    MemberView,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
    Slots,
)
from coordinator.core.owner import OwnerClock
from coordinator.core.policy import MAX_BACKOFF
from coordinator.core.restarts import Restarts

_NEVER = float("inf")
_SPEC = codec(RunSpec)


def _is_unready(member: Member) -> bool:
    return member.phase is not MemberPhase.READY


def _is_unstarted(member: Member) -> bool:
    """Also one that starts again alone, while the others run."""
    return member.phase in (
        MemberPhase.EXPECTED,
        MemberPhase.RESERVED,
        MemberPhase.READY,
        MemberPhase.STARTING,
    )


def _is_unfinished(member: Member) -> bool:
    return member.cause is not Cause.COMPLETED


def _is_unsettled(member: Member) -> bool:
    return not member.is_settled


def _is_unended(member: Member) -> bool:
    return not member.phase.has_ended


class RunState(Tracked):
    """Mutable state of one run. ``number``: of two runs the younger has the larger one.
    ``request_id``: by which its creation may be asked for again."""

    DURABLE: ClassVar = {
        "number": codec(int),
        "request_id": codec(str),
        "phase": codec(RunPhase),
        "revision": codec(int),
        "created_at": codec(Instant),
        "ended_at": codec(Instant),
        "_forming_deadline": codec(Instant),
        "_restart_at": codec(Instant),
        "_settled": codec(bool),
        "_slots": codec(Slots),
    }

    def __init__(
        self,
        run_id: RunId,
        spec: RunSpec,
        book: LeaseBook,
        now: float,
        number: int = 0,
        ledger: Ledger | None = None,
        request_id: str = "",
    ) -> None:
        self.track(ledger, "run", run_id)
        if ledger is not None:
            ledger.put(("spec", run_id), Constant(_SPEC, spec))
        self.run_id = run_id
        self.spec = spec
        self.number = number
        self.request_id = request_id
        self.phase = RunPhase.FORMING
        self.revision = 1
        self.created_at = now
        self.ended_at = _NEVER
        slots = roster.members(spec.roles)
        self._members = {slot: Member(slot, now, run_id, ledger) for slot in slots}
        self._silence = liveness.SilenceWatch(self._members.values(), spec)
        self._stalls = stalls.StallWatch(self._members.values(), spec)
        self._late: frozenset[MemberId] = frozenset()  # while their stacks are asked for
        self._unanswered: set[MemberId] = set()
        self._blame_at = _NEVER
        self._watch_for_stragglers()
        self._forming_deadline = now + spec.reservation_timeout
        self._restarts = Restarts(run_id, spec.restart, ledger)
        self._restart_at = _NEVER  # set from the verdict to the next generation
        self._owner = OwnerClock(spec.owner_timeout, now)
        self._gang = Gang(run_id, spec, self._members.values(), book, ledger)
        self._leases = self._gang.leases
        self._ending: Ending | None = None
        self._settled = False
        self._slots = Slots()

    def _watch_for_stragglers(self) -> None:
        """Whom the run waits for: with thousands of members nobody is looked at for each other."""
        members = self._members.values()
        counting = completion.completion_roles(self.spec)
        counted = (each for each in members if each.id.role in counting)
        self._unready = Holdout(members, _is_unready)
        self._unstarted = Holdout(members, _is_unstarted)
        self._unfinished = Holdout(counted, _is_unfinished)
        self._unsettled = Holdout(members, _is_unsettled)
        self._unended = Holdout(members, _is_unended)

    # -- over a restart --------------------------------------------------------------------

    @classmethod
    def restore(
        cls, run_id: RunId, records: Records, book: LeaseBook, ledger: Ledger | None
    ) -> Self:
        """As it was, but that everybody's silence and the owner's absence begin now. Raises
        BrokenRecord. ``connect`` must follow."""
        spec = records.value("spec", run_id, _SPEC)
        run = cls(run_id, spec, book, records.now, 0, ledger)
        records.load(run)
        records.load(run._restarts)
        run._owner.not_before(records.now + COME_BACK)
        for member in run._members.values():
            records.load(member)
            # All of them come back at once, and each has a handshake to make.
            member.last_heard_at = records.now + max(0.0, COME_BACK - spec.liveness_ttl)
        return run

    def connect(self, records: Records) -> None:
        """What it has in the book, in the order of the runs."""
        deadline = self._forming_deadline
        self._forming_deadline = records.postponed(deadline, self.spec.reservation_timeout)
        if self._restart_at < _NEVER:  # a pause, which nobody can miss; the clock may be set back
            self._restart_at = min(self._restart_at, records.now + MAX_BACKOFF)
        self._gang.restore(records)
        if records.has("ending", self.run_id):
            self._ending = self._new_ending(Kind.CANCELLED, "")
            self._ending.restore(records)
        self._silence.rearm()
        self._stalls.rearm()

    def _new_ending(
        self,
        kind: Kind,
        reason: str,
        grace: float | None = None,
        failure: Failure | None = None,
    ) -> Ending:
        members = list(self._members.values())
        run_id, spec, ledger = self.run_id, self.spec, self._ledger
        return Ending(run_id, spec, members, kind, reason, grace, failure, ledger)

    def forget(self) -> None:
        """Nobody needs any of its records any more."""
        super().forget()
        if self._ledger is not None:
            self._ledger.remove(("spec", self.run_id))
        self._gang.forget()
        self._restarts.forget()
        if self._ending is not None:
            self._ending.forget()
        for member in self._members.values():
            member.forget()

    @property
    def _may_stall(self) -> bool:
        """Who waits for a member that starts again alone is not stuck."""
        return self.phase is RunPhase.RUNNING and self._forming_deadline == _NEVER

    @property
    def _is_decided(self) -> bool:
        """What comes of the ending is known: the end, or a restart."""
        return self._settled or self._restart_at < _NEVER

    # -- time ------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When ``pass_time`` must be called at the latest; infinity after the end."""
        if self.phase.is_terminal:
            return _NEVER
        own = _NEVER if self._ending is None else self._ending.next_deadline()
        if self.phase is not RunPhase.STOPPING:
            own = min(own, self._owner.deadline)
        if self._unended.find() is None:  # else its end, or its fence, comes first
            own = min(own, self._restart_at)
        if self._may_stall:
            own = min(own, self._blame_at if self._late else self._stalls.next_at)
        return min(self._forming_deadline, self._silence.next_at, own)

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away: extend everybody."""
        self._silence.extend(seconds)
        self._forming_deadline += seconds
        self._restart_at += seconds
        self._blame_at += seconds
        self._stalls.extend(seconds)
        self._owner.extend(seconds)
        if self._ending is not None:
            self._ending.extend(seconds)

    # -- views -----------------------------------------------------------------------------

    def _changed(self) -> list[Effect]:
        self.revision += 1
        news = self._restarts.take_news()
        return [RunChanged(self.run_id), *(Restarted(self.run_id, each) for each in news)]

    def member_phase(self, member: MemberId) -> MemberPhase:
        """Raises KeyError."""
        return self._members[member].phase

    def member_view(self, member: MemberId, now: float) -> MemberView:
        """A frozen copy of one member. Raises KeyError."""
        return self._leases.view(self._members[member], now)

    def view(self, now: float) -> RunView:
        """A frozen copy, without the diagnosis (``machine`` adds it)."""
        is_restarting = self.phase is RunPhase.RESTARTING
        return RunView(
            run_id=self.run_id,
            spec=self.spec,
            phase=self.phase,
            generation=self._gang.generation,
            members=tuple(self._leases.view(member, now) for member in self._members.values()),
            created_at=self.created_at,
            revision=self.revision,
            failure=self._ending.failure if self._ending and not is_restarting else None,
            stop_reason=self._ending.reason if self._ending else "",
            settled=self._settled,
            slots=self._slots,
            restarts=self._restarts.latest,
            restart_count=self._restarts.count,
            restart_at=self._restart_at if self._restart_at < _NEVER else None,
        )

    def check_invariants(self) -> None:
        """What must hold between events. Raises AssertionError."""
        deadlines = self.next_deadline(), self._silence.next_at
        invariants.check_run(self.phase, self._members.values(), self._settled, *deadlines)
