"""The GPUs of one run's gang: asked for when every member is ready, claimed on their hosts, and
given back member by member. The shell of the lease book inside ``run``; driven by it alone.

Granted is not enough: the host has the last word, because another application may use the GPU
whose coordinator knows nothing of ours. So each agent claims what was granted to its member before
anybody starts. When one claim is refused all grants go back, and the gang asks again: nobody ever
waits for one GPU while it keeps another, so that gangs cannot block each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import ClassVar

from coordinator.core.durable import Ledger, Records, Tracked
from coordinator.core.durable_values import Instant, codec
from coordinator.core.effects import ClaimGpus, Effect, InspectGpus
from coordinator.core.errors import ExecutorUnfit, LeaseLost
from coordinator.core.events import GpusClaimed, GpusInspected
from coordinator.core.gpu import GpuOffer, LeaseRequest, LeaseToken, Want
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_queue import shortage
from coordinator.core.member import Member
from coordinator.core.model import (
    ExecutorInfo,
    ExitReport,
    MemberId,
    MemberView,
    RunId,
    RunSpec,
)


def check_offer(spec: RunSpec, member: MemberId, executor: ExecutorInfo, offer: GpuOffer) -> None:
    """Raises ExecutorUnfit: asked for n GPUs, a member gets n or an error, never fewer (G4)."""
    count = spec.gpus.count(member.role)
    found = len({gpu.uuid for gpu in offer.gpus})
    if found >= count:
        return
    why = offer.problem or "no more are visible there"
    raise ExecutorUnfit(
        f"{member} needs {count} GPU{'s' * (count != 1)}, but has {found} on {executor}: {why}",
        {"wanted": str(count), "found": str(found)},
    )


class GangLeases(Tracked):
    """Mutable state of one run's GPUs; what one member has of them is in ``Member``."""

    DURABLE: ClassVar = {
        "_round": codec(int),
        "_since": codec(Instant | None),
        "_has_asked": codec(bool),
        "_is_granted": codec(bool),
        "has_started": codec(bool),
    }

    def __init__(
        self,
        run_id: RunId,
        spec: RunSpec,
        members: Collection[Member],
        book: LeaseBook,
        ledger: Ledger | None = None,
    ) -> None:
        self.track(ledger, "gang_gpus", run_id)
        self._run_id = run_id
        self._spec = spec
        self._members = {member.id: member for member in members}
        self._book = book
        self._round = 0
        self._has_asked = False
        self._request: LeaseRequest | None = None  # when it has asked
        self._since: float | None = None  # its place in the queue, kept when a host refuses
        self._shortage: dict[str, str] = {}  # of the request
        self._is_granted = False
        self._inspected: dict[str, LeaseToken | None] = {}  # whose last holder had this lease
        self.has_started = False  # from then on the GPUs are used

    def restore(self, records: Records) -> None:
        """After the members and the book. What was inspected is asked for once more."""
        records.load(self)
        if self._has_asked:
            self._request = self._new_request(self._holders())
        if self._request is not None and not self._is_granted:
            # One that was granted is over when the book has nothing of it, however long ago.
            self._book.queue_again(self._request, records.now)
            self._shortage = shortage(self._request)

    # -- while the gang forms --------------------------------------------------------------

    def offer(self, member: Member, executor: ExecutorInfo, offer: GpuOffer, now: float) -> None:
        """A member that has just reserved its slot says what GPUs there are."""
        member.offer = tuple(dict.fromkeys(gpu.uuid for gpu in offer.gpus))
        member.commands = ()
        self._book.see(executor.hostname, executor.boot_id, offer.gpus, now)

    def advance(self, now: float) -> list[Effect]:
        """Every member is ready, or something in the book has changed: ask, look, claim."""
        holders = self._holders()
        if not holders or self._has_all_leases:
            return []
        # Some have lapsed, since a member was away for long: nobody has been started with them.
        effects = self._take_back(now) if self._is_granted else []
        if self._request is None:
            self._round += 1
            self._since = now if self._since is None else self._since
            self._request = self._new_request(holders)
            self._has_asked = True
            self._shortage = shortage(self._request)
        granted = self._book.acquire(self._request, now)
        if granted is None:
            return effects + self._inspect(holders)
        self._is_granted = True
        for member in holders:
            uuids = granted.uuids[str(member.id)]
            member.granted = {uuid: granted.tokens[uuid] for uuid in uuids}
            member.is_claiming = True
        return effects + [self._claim(member) for member in holders]

    def _holders(self) -> list[Member]:
        return [m for m in self._members.values() if self._spec.gpus.count(m.id.role)]

    @property
    def _has_all_leases(self) -> bool:
        request = self._request
        return self._is_granted and request is not None and self._book.holds(request.request_id)

    def _new_request(self, holders: Iterable[Member]) -> LeaseRequest:
        name = f" ({self._spec.name})" if self._spec.name else ""
        return LeaseRequest(
            request_id=f"{self._run_id}/{self._round}",
            holder=f"run {self._run_id}{name}",
            wants=tuple(map(self._want, holders)),
            ttl=self._spec.fence_timeout,
            patience=float("inf"),  # the run has a deadline of its own
            since=self._since,
        )

    def _want(self, member: Member) -> Want:
        return Want(str(member.id), member.offer, self._spec.gpus.count(member.id.role))

    def _inspect(self, holders: Iterable[Member]) -> list[Effect]:
        """Whatever may turn out to be free is looked at by a member that could have it. Once for
        each lease that it had: the agent goes on looking."""
        effects: list[Effect] = []
        for member in holders:
            stuck = self._book.stuck(member.offer)
            tokens = {uuid: self._book.view(uuid).token for uuid in stuck}
            new = [
                uuid
                for uuid, token in tokens.items()
                if uuid not in self._inspected or self._inspected[uuid] != token
            ]
            if new:
                self._inspected.update(tokens)
                effects.append(self._look(member, stuck))
        return effects

    def _look(self, member: Member, uuids: tuple[str, ...]) -> InspectGpus:
        assert member.incarnation is not None
        number = self._book.look(uuids)
        command = InspectGpus(
            self._run_id,
            member.id,
            member.incarnation,
            number,
            self._book.coordinator_id,
            uuids,
        )
        # That it is to let go of what it had must not get lost: others wait for that.
        kept = (each for each in member.commands if isinstance(each, ClaimGpus))
        member.commands = (*kept, command)
        return command

    def _claim(self, member: Member) -> ClaimGpus:
        assert member.incarnation is not None
        number = self._round
        command = ClaimGpus(self._run_id, member.id, member.incarnation, number, member.granted)
        member.commands = (command,)
        return command

    def inspected(self, executor: ExecutorInfo, event: GpusInspected, now: float) -> None:
        """What an agent has found out."""
        where = (executor.hostname, executor.boot_id)
        self._book.inspected(*where, event.number, event.sights, now)
        for sight in event.sights:
            if sight.is_free:  # its agent looks no longer
                self._inspected.pop(sight.uuid, None)

    def claimed(self, member: Member, event: GpusClaimed, now: float) -> list[Effect]:
        """The host's word. When all have claimed, `is_complete`. After the start nothing can be
        refused any more: what a member has is used, whatever is said again."""
        if self.has_started or self._request is None:
            return []
        if event.number != self._round or not member.granted:
            return []
        if not event.refused:
            member.is_claiming = False
            return []
        for sight in event.refused:
            self._book.refuse(self._request.request_id, str(member.id), sight, now)
        return self._take_back(now)  # its place in the queue stays: it has done nothing wrong

    @property
    def is_complete(self) -> bool:
        """True when every member has what it asked for, also on its host."""
        if self._spec.gpus.total == 0:
            return True
        is_claiming = any(member.is_claiming for member in self._members.values())
        return not is_claiming and self._has_all_leases

    def give_back(self, now: float) -> list[Effect]:
        """The gang is not going to start like this: what was granted was not used by anybody,
        since nobody was started with it. Also what the book has granted while a member was away,
        so that nobody was told. When it is complete again it is the last in the queue."""
        self._since = None
        return self._take_back(now)

    def _take_back(self, now: float) -> list[Effect]:
        if self.has_started or self._request is None:
            return []
        request, self._request, self._has_asked = self._request, None, False
        holders = [member for member in self._holders() if member.granted]
        self._is_granted, self._shortage = False, {}
        for member in holders:
            member.granted, member.is_claiming = {}, False
        self._inspected.clear()
        self._book.withdraw(request.request_id, now)
        for want in request.wants:
            self._book.return_unused(request.request_id, want.who, now)
        self._round += 1
        return [self._claim(member) for member in holders if member.is_watched]

    def renew_all(self) -> None:
        """All members have ended, and another generation is to have GPUs: it asks anew. What the
        last one has not proven free is the book's business."""
        self._round += 1
        self._request, self._has_asked, self._is_granted = None, False, False
        self._since, self._shortage = None, {}
        self._inspected.clear()
        self.has_started = False
        for member in self._members.values():
            member.granted, member.is_claiming, member.commands = {}, False, ()

    def said_last(self, member: Member) -> list[Effect]:
        """What a member's lost session may not have delivered. Nothing after the start: everybody
        has claimed, and descriptors that the agent has passed on cannot be claimed again."""
        return [] if self.has_started else [*member.commands]

    # -- from the start on -----------------------------------------------------------------

    def renew(self, member: Member, tokens: Iterable[LeaseToken], now: float) -> None:
        """A member was heard of, and says what it holds. Raises LeaseLost; not before the start,
        when what it has just been told to give back may still stand in its beat."""
        tokens, mine = tuple(tokens), member.granted.values()
        if not self.has_started:
            tokens = tuple(token for token in tokens if token in mine)
        for token in tokens:
            if token not in mine:
                raise LeaseLost(f"the lease {token} is none of {member.id}'s in run {self._run_id}")
        if self._request is not None:
            self._book.renew(self._request.request_id, tokens, now)

    def leaving(self, member: MemberId, now: float) -> None:
        """It was told to stop."""
        if self._request is not None and self.has_started:
            self._book.leaving(self._request.request_id, str(member), now)

    def ended(self, member: MemberId, report: ExitReport, now: float) -> None:
        """Its process has ended, and its agent has looked at its GPUs since. Also of a member
        that was given up before: what it has seen free is proven."""
        if self._request is not None and self.has_started:
            self._book.release(self._request.request_id, str(member), report.gpus, now)

    def lost(self, member: MemberId, now: float) -> list[Effect]:
        """It is not waited for any more."""
        if not self.has_started:
            return self.give_back(now)
        if self._request is not None:
            reason = "its agent was not heard of any more"
            self._book.lose(self._request.request_id, str(member), reason, now)
        return []

    # -- out -------------------------------------------------------------------------------

    def view(self, member: Member, now: float) -> MemberView:
        """A frozen copy of the member, with what it has and what it waits for."""
        return member.view(self._obstacles(member, now))

    def _obstacles(self, member: Member, now: float) -> tuple[str, ...]:
        if self._request is None:
            return ()
        if member.is_claiming:
            return (f"its agent has not claimed {', '.join(member.granted)} there yet",)
        if self._is_granted or not self._spec.gpus.count(member.id.role):
            return ()
        # Only its own want: a view of a big gang must not look at all wants for each member.
        own = replace(self._request, wants=(self._want(member),))
        short = self._shortage.get(str(member.id))
        return (*((short,) if short else ()), *self._book.explain(own, now=now))
