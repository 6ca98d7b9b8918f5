"""The book of GPUs: who may use which, granted to a gang as a whole, given back with proof only.

A GPU is FREE, HELD by one lease, RELEASING while its holder leaves, UNPROVEN once the holder has
ended without proof, and QUARANTINED when none came in time. Only two things make it FREE again: a
proof that is certainly younger than the lease (of its own holder, or of an agent that was asked to
look), or an operator's word. Time proves nothing.

Synchronous and deterministic, like all of the core: the caller brings the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from coordinator.core.errors import GpuHeld, InvalidRun, LeaseLost
from coordinator.core.gpu import GpuSight, LeaseRequest, LeaseState, LeaseToken
from coordinator.core.lease_book_state import BookState
from coordinator.core.lease_entry import Entry
from coordinator.core.lease_news import Acquired, Expired, Freed, Lapsed, Leased, Told

__all__ = ["Acquired", "LeaseBook"]

_NEVER = float("inf")


_HEARD_SHARE = 0.5
"""Of a lease's time to live: for so long after a renewal nobody else's word ends it."""


class LeaseBook(BookState):
    """All GPUs that one coordinator has heard of. ``coordinator_id`` must never have been used by
    another book, or ``last_number`` be at least the last number of that one."""

    def serve(self, now: float) -> None:
        """Whoever can have what it waits for. In the order of arrival; what an earlier request
        waits for is not given to a later one, so that nobody waits for ever behind those that need
        less."""
        for request, chosen in self._queue.take(self._entries):
            tokens: dict[str, LeaseToken] = {}
            for who, uuids in chosen.items():
                for uuid in uuids:
                    token = LeaseToken(self.coordinator_id, self._next_number())
                    entry = self._entries[uuid]
                    entry.hold(token, request, who, now)
                    self._deadlines.arm(uuid, entry)
                    tokens[uuid] = token
                    self._effects.append(
                        Leased(uuid, entry.hostname, token, request.request_id, request.holder, who)
                    )
            granted = Acquired(request.request_id, tokens, chosen)
            self._requests.grant(granted)
            self._effects.append(granted)

    # -- what is on the hosts --------------------------------------------------------------

    def see(self, hostname: str, boot_id: str, sights: Iterable[GpuSight], now: float) -> None:
        """An agent says what there is. It makes GPUs known and says who is in the way; it frees
        none, because nobody knows how old it is (see ``inspected``)."""
        for sight in sights:
            entry = self._entries.get(sight.uuid)
            if entry is None:
                entry = Entry(sight.uuid, hostname, boot_id, now, self._ledger)
                self._entries[sight.uuid] = entry
            self._see(entry, hostname, boot_id, sight, now)
        self.serve(now)

    def _see(
        self,
        entry: Entry,
        hostname: str,
        boot_id: str,
        sight: GpuSight,
        now: float,
        *,
        is_new: bool = False,
    ) -> None:
        """What makes a GPU worth an agent's look is told, so that those who wait for it ask."""
        if entry.state is LeaseState.FREE:
            entry.hostname, entry.boot_id = hostname, boot_id
            was_grantable = entry.is_grantable
            entry.see(sight, is_new=is_new)
            if was_grantable and entry.outsider is not None:
                self._tell(entry, f"is in use by {entry.outsider[0]}")
        elif entry.boot_id == boot_id:
            entry.see(sight)
        elif entry.elsewhere != (hostname, boot_id) and not self._is_heard_of(entry, now):
            # Started again, or moved; or a word from before that comes late. A look tells.
            entry.elsewhere = (hostname, boot_id)
            self._tell(entry, f"was seen on {hostname} under another boot")

    def look(self, uuids: Iterable[str]) -> int:
        """A number for an inspection of these: what an agent finds after it was given the number
        is younger than every lease up to now. Raises UnknownGpu."""
        for uuid in uuids:
            self._entry(uuid)
        return self._next_number()

    def inspected(
        self, hostname: str, boot_id: str, number: int, sights: Sequence[GpuSight], now: float
    ) -> None:
        """The answer to an inspection: with ``is_free`` the proof of an agent that could claim the
        GPU, after it had made sure that no older lease can be claimed any more. It also tells that
        a machine was started again since: whoever held a GPU is gone with that boot."""
        self.see(hostname, boot_id, sights, now)
        for sight in sights:
            entry = self._entries[sight.uuid]
            if entry.state is LeaseState.FREE and 0 < number <= self._number:
                self._see(entry, hostname, boot_id, sight, now, is_new=True)
            if not sight.is_free or not self._is_proof(entry, boot_id, number, now):
                continue
            if entry.boot_id == boot_id:
                self._tell(entry, "was found free by another agent on its host")
            else:
                entry.elsewhere = (hostname, boot_id)
                self._tell(entry, f"was lost with host {entry.hostname}, started again since")
            self._free(entry, now)
        self.serve(now)

    def _is_proof(self, entry: Entry, boot_id: str, number: int, now: float) -> bool:
        """A number that is older than the lease, or that this book has never given, proves
        nothing; nor does a look at a GPU whose holder may just be about to claim it."""
        last = 0 if entry.token is None else entry.token.number
        if entry.is_put_aside or not last < number <= self._number:
            return False
        is_gone = entry.state.is_live and not self._is_heard_of(entry, now)
        return entry.is_stuck or (is_gone and entry.boot_id != boot_id)

    @staticmethod
    def _is_heard_of(entry: Entry, now: float) -> bool:
        """Its holder has renewed the lease not long ago, so that its machine was not started again:
        whoever says so is wrong, or lies. A holder that is gone is lost soon, by its run."""
        return entry.state.is_live and now - entry.renewed_at < entry.ttl * _HEARD_SHARE

    # -- a gang's leases -------------------------------------------------------------------

    def acquire(self, request: LeaseRequest, now: float) -> Acquired | None:
        """All GPUs of a gang, or a place in the queue (None; the grant comes as an effect).
        Idempotent by ``request_id``. Raises InvalidRun, UnknownGpu."""
        granted = self._requests.granted(request.request_id)
        if granted is not None:
            return granted
        if request.request_id not in self._queue:
            self._check(request)
            self._queue.add(request, now)
            self.serve(now)
        return self._requests.granted(request.request_id)

    def _check(self, request: LeaseRequest) -> None:
        if self._requests.is_over(request.request_id):
            raise InvalidRun(f"the request {request.request_id} is over: choose another id")
        names = [want.who for want in request.wants]
        if not all(names) or not names or len(set(names)) < len(names):
            raise InvalidRun("a request for GPUs must name each of its holders once")
        for want in request.wants:
            for uuid in want.uuids:
                self._entry(uuid)
            if not 0 < want.count <= len(set(want.uuids)):
                raise InvalidRun(f"{want.who} wants {want.count} of {len(set(want.uuids))} GPUs")
        if not 0 < request.ttl < _NEVER or not request.patience >= 0:
            raise InvalidRun("a lease must have a time to live, and a request its patience")

    def renew(self, request_id: str, tokens: Iterable[LeaseToken], now: float) -> None:
        """The holder was heard of. Raises LeaseLost, and renews nothing, when one of the leases is
        unknown, has lapsed, or was granted to another since: its tree must stop."""
        entries = [self._held(request_id, token) for token in tokens]
        for entry in entries:
            entry.renew(now)

    def _held(self, request_id: str, token: LeaseToken) -> Entry:
        uuid = self._requests.uuid(request_id, token)
        entry = None if uuid is None else self._entries[uuid]
        if entry is None or entry.token != token:
            raise LeaseLost(f"the lease {token} is none of {request_id}'s, or is over")
        if not entry.state.is_live:
            why = f", {entry.reason}" if entry.reason else ""
            raise LeaseLost(
                f"the lease {token} of GPU {entry.uuid} on {entry.hostname} is over: the GPU "
                f"is {entry.state.value}{why}"
            )
        if entry.has_lapsed:
            raise LeaseLost(f"the lease {token} of GPU {entry.uuid} has lapsed")
        return entry

    def holds(self, request_id: str) -> bool:
        """Whether a request was granted and still has all of it."""
        granted = self._requests.granted(request_id)
        return granted is not None and all(
            self._entries[uuid].is_held_with(token) for uuid, token in granted.tokens.items()
        )

    def leaving(self, request_id: str, who: str, now: float) -> None:
        """The holder was told to stop."""
        for entry in self._leases(request_id, who):
            entry.state, entry.since = LeaseState.RELEASING, now

    def release(self, request_id: str, who: str, sights: Iterable[GpuSight], now: float) -> None:
        """The holder has ended. A GPU that it has seen free since is free, also when it had been
        given up before; any other is unproven. Idempotent."""
        seen = {sight.uuid: sight for sight in sights}
        for entry in self._of_holder(request_id, who):
            if entry.is_put_aside:
                continue
            sight = seen.get(entry.uuid)
            if entry.state is LeaseState.FREE or (entry.is_stuck and not (sight and sight.is_free)):
                continue
            if sight is not None and sight.is_free:
                entry.see(sight)
                self._free(entry, now)
            else:
                why = "its holder ended, and nobody has seen the GPU free since"
                reason, pids = (sight.holder or why, sight.pids) if sight else (why, ())
                self._doubt(entry, reason, pids, now)
        self._drop_if_over(request_id)
        self.serve(now)

    def lose(self, request_id: str, who: str, reason: str, now: float) -> None:
        """The holder is not to be waited for any more: it may be there or not. Idempotent."""
        for entry in self._leases(request_id, who):
            self._doubt(entry, reason, (), now)
        self._drop_if_over(request_id)

    def return_unused(self, request_id: str, who: str, now: float) -> None:
        """The holder has never claimed them on its host and never will: nothing is to be proven."""
        for entry in self._leases(request_id, who):
            self._free(entry, now)
        self.serve(now)

    def refuse(self, request_id: str, who: str, sight: GpuSight, now: float) -> None:
        """As `return_unused`, for one: its host has refused the claim, because somebody is there of
        whom this book knows nothing. It is not granted again before an agent has seen it free."""
        refusal = replace(sight, is_free=False, holder=sight.holder or "somebody")
        for entry in self._leases(request_id, who):
            if entry.uuid == sight.uuid:
                self._free(entry, now)
                self._see(entry, entry.hostname, entry.boot_id, refusal, now)

    def withdraw(self, request_id: str, now: float) -> None:
        """The request is not wanted any more; its leases, if any, are not touched."""
        if request_id in self._queue:
            self._queue.remove(request_id)
            self._requests.end(request_id)
            self.serve(now)

    def _leases(self, request_id: str, who: str) -> list[Entry]:
        return [entry for entry in self._of_holder(request_id, who) if entry.state.is_live]

    def _doubt(self, entry: Entry, reason: str, pids: tuple[int, ...], now: float) -> None:
        entry.doubt(reason, pids, now)
        self._deadlines.arm(entry.uuid, entry)
        self._tell(entry, f"is not proven free: {reason}")

    def _free(self, entry: Entry, now: float) -> None:
        entry.free(now)
        if entry.token is not None:
            self._effects.append(Freed(entry.uuid, entry.hostname, entry.token, entry.request_id))
        self._drop_if_over(entry.request_id)

    def _drop_if_over(self, request_id: str) -> None:
        if self._requests.granted(request_id) is None:
            return
        if all(entry.state is LeaseState.FREE for entry in self._of(request_id)):
            self._requests.end(request_id)

    # -- operators -------------------------------------------------------------------------

    def clear(self, uuid: str, reason: str, now: float) -> None:
        """An operator's word that the GPU is free. Raises UnknownGpu; GpuHeld while a holder
        that is heard of has it: stop that run instead."""
        entry = self._entry(uuid)
        if entry.state.is_live:
            raise GpuHeld(f"{uuid} is held by {entry.who} of {entry.holder}: stop that first")
        self._tell(entry, f"was cleared by an operator: {reason}")
        self._free(entry, now)
        entry.outsider = None
        self.serve(now)

    def quarantine(self, uuid: str, reason: str, now: float) -> None:
        """An operator's word that it must not be used, also when it is proven free. Raises
        UnknownGpu; GpuHeld while somebody holds it."""
        entry = self._entry(uuid)
        if entry.state.is_live:
            raise GpuHeld(f"{uuid} is held by {entry.who} of {entry.holder}: stop that first")
        entry.put_aside(reason, now)
        self._tell(entry, f"was put aside by an operator: {reason}")

    # -- time ------------------------------------------------------------------------------

    def pass_time(self, now: float) -> None:
        """Deadlines that have come."""
        for entry in self._deadlines.due(now):
            if entry.state is LeaseState.UNPROVEN:
                self._tell(entry, f"is quarantined: {entry.reason}")
                entry.quarantine(now)
            elif not entry.has_lapsed:
                entry.has_lapsed = True
                self._effects.append(Lapsed(entry.request_id, entry.who, entry.uuid))
            else:
                self._doubt(entry, "its holder is not heard of any more", (), now)
                self._drop_if_over(entry.request_id)
        for request in self._queue.overdue(now):
            why = self.explain(request, now=now)
            self._queue.remove(request.request_id)
            self._requests.end(request.request_id)
            self._effects.append(Expired(request.request_id, why))
        self.serve(now)

    def _tell(self, entry: Entry, text: str) -> None:
        about = f" (last: {entry.who} of {entry.holder})" if entry.holder else ""
        self._effects.append(
            Told(entry.uuid, f"GPU {entry.uuid} on {entry.hostname}{about} {text}")
        )
