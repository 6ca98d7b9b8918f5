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

from coordinator.core.errors import GpuHeld, InvalidRun, LeaseLost, UnknownGpu
from coordinator.core.gpu import GpuSight, LeaseRequest, LeaseState, LeaseToken, LeaseView
from coordinator.core.lease_entry import Entry
from coordinator.core.lease_news import Acquired, BookEffect, Expired, Lapsed, Told
from coordinator.core.lease_queue import Queue, shortage

__all__ = ["Acquired", "LeaseBook"]

_NEVER = float("inf")
_KEPT_REQUESTS = 10_000  # that are over, so that none of them is taken for a new one


class LeaseBook:
    """All GPUs that one coordinator has heard of. ``coordinator_id`` must never have been used by
    another book, or ``last_number`` be at least the last number of that one."""

    def __init__(self, coordinator_id: str, last_number: int = 0) -> None:
        self.coordinator_id = coordinator_id
        self._number = last_number
        self._entries: dict[str, Entry] = {}
        self._queue = Queue()
        self._granted: dict[str, Acquired] = {}
        self._over: dict[str, None] = {}  # requests, the oldest first
        self._effects: list[BookEffect] = []

    # -- what is on the hosts --------------------------------------------------------------

    def see(self, hostname: str, boot_id: str, sights: Iterable[GpuSight], now: float) -> None:
        """An agent says what there is. It makes GPUs known and says who is in the way; it frees
        none, because nobody knows how old it is (see ``inspected``)."""
        for sight in sights:
            entry = self._entries.get(sight.uuid)
            if entry is None:
                entry = self._entries[sight.uuid] = Entry(sight.uuid, hostname, boot_id, now)
            self._see(entry, hostname, boot_id, sight)
        self._serve(now)

    def _see(
        self, entry: Entry, hostname: str, boot_id: str, sight: GpuSight, *, is_new: bool = False
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
        elif entry.elsewhere != (hostname, boot_id):
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
                self._see(entry, hostname, boot_id, sight, is_new=True)
            if not sight.is_free or not self._is_proof(entry, boot_id, number):
                continue
            if entry.boot_id == boot_id:
                self._tell(entry, "was found free by another agent on its host")
            else:
                entry.elsewhere = (hostname, boot_id)
                self._tell(entry, f"was lost with host {entry.hostname}, started again since")
            self._free(entry, now)
        self._serve(now)

    def _is_proof(self, entry: Entry, boot_id: str, number: int) -> bool:
        """A number that is older than the lease, or that this book has never given, proves
        nothing; nor does a look at a GPU whose holder may just be about to claim it."""
        last = 0 if entry.token is None else entry.token.number
        if entry.is_put_aside or not last < number <= self._number:
            return False
        return entry.is_stuck or (entry.state.is_live and entry.boot_id != boot_id)

    # -- a gang's leases -------------------------------------------------------------------

    def acquire(self, request: LeaseRequest, now: float) -> Acquired | None:
        """All GPUs of a gang, or a place in the queue (None; the grant comes as an effect).
        Idempotent by ``request_id``. Raises InvalidRun, UnknownGpu."""
        if request.request_id in self._granted:
            return self._granted[request.request_id]
        if request.request_id not in self._queue:
            self._check(request)
            self._queue.add(request, now)
            self._serve(now)
        return self._granted.get(request.request_id)

    def _check(self, request: LeaseRequest) -> None:
        if request.request_id in self._over:
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

    def _serve(self, now: float) -> None:
        """In the order of arrival; what an earlier request waits for is not given to a later one,
        so that nobody waits for ever behind those that need less."""
        for request, chosen in self._queue.take(self._entries):
            tokens: dict[str, LeaseToken] = {}
            for who, uuids in chosen.items():
                for uuid in uuids:
                    token = LeaseToken(self.coordinator_id, self._next_number())
                    self._entries[uuid].hold(token, request, who, now)
                    tokens[uuid] = token
            granted = Acquired(request.request_id, tokens, chosen)
            self._granted[request.request_id] = granted
            self._effects.append(granted)

    def renew(self, request_id: str, tokens: Iterable[LeaseToken], now: float) -> None:
        """The holder was heard of. Raises LeaseLost, and renews nothing, when one of the leases is
        unknown, has lapsed, or was granted to another since: its tree must stop."""
        entries = [self._held(request_id, token) for token in tokens]
        for entry in entries:
            entry.renew(now)

    def _held(self, request_id: str, token: LeaseToken) -> Entry:
        for entry in self._of(request_id):
            if entry.token == token and entry.state.is_live:
                if entry.has_lapsed:
                    raise LeaseLost(f"the lease {token} of GPU {entry.uuid} has lapsed")
                return entry
            if entry.token == token:
                why = f", {entry.reason}" if entry.reason else ""
                raise LeaseLost(
                    f"the lease {token} of GPU {entry.uuid} on {entry.hostname} is over: the GPU "
                    f"is {entry.state.value}{why}"
                )
        raise LeaseLost(f"the lease {token} is none of {request_id}'s, or is over")

    def holds(self, request_id: str) -> bool:
        """Whether a request was granted and still has all of it."""
        entries = self._of(request_id)
        tokens = self._granted[request_id].tokens if entries else {}
        return bool(entries) and all(
            entry.token == tokens[entry.uuid] and entry.state.is_live and not entry.has_lapsed
            for entry in entries
        )

    def _of(self, request_id: str) -> list[Entry]:
        granted = self._granted.get(request_id)
        return [self._entries[uuid] for uuid in granted.tokens] if granted is not None else []

    def leaving(self, request_id: str, who: str, now: float) -> None:
        """The holder was told to stop."""
        for entry in self._leases(request_id, who):
            entry.state, entry.since = LeaseState.RELEASING, now

    def release(self, request_id: str, who: str, sights: Iterable[GpuSight], now: float) -> None:
        """The holder has ended. A GPU that it has seen free since is free, also when it had been
        given up before; any other is unproven. Idempotent."""
        seen = {sight.uuid: sight for sight in sights}
        for entry in self._of(request_id):
            if entry.request_id != request_id or entry.who != who or entry.is_put_aside:
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
        self._serve(now)

    def lose(self, request_id: str, who: str, reason: str, now: float) -> None:
        """The holder is not to be waited for any more: it may be there or not. Idempotent."""
        for entry in self._leases(request_id, who):
            self._doubt(entry, reason, (), now)
        self._drop_if_over(request_id)

    def return_unused(self, request_id: str, who: str, now: float) -> None:
        """The holder has never claimed them on its host and never will: nothing is to be proven."""
        for entry in self._leases(request_id, who):
            self._free(entry, now)
        self._serve(now)

    def refuse(self, request_id: str, who: str, sight: GpuSight, now: float) -> None:
        """As `return_unused`, for one: its host has refused the claim, because somebody is there of
        whom this book knows nothing. It is not granted again before an agent has seen it free."""
        refusal = replace(sight, is_free=False, holder=sight.holder or "somebody")
        for entry in self._leases(request_id, who):
            if entry.uuid == sight.uuid:
                self._free(entry, now)
                self._see(entry, entry.hostname, entry.boot_id, refusal)

    def withdraw(self, request_id: str, now: float) -> None:
        """The request is not wanted any more; its leases, if any, are not touched."""
        if request_id in self._queue:
            self._queue.remove(request_id)
            self._end(request_id)
            self._serve(now)

    def _leases(self, request_id: str, who: str) -> list[Entry]:
        return [
            entry
            for entry in self._of(request_id)
            if entry.request_id == request_id and entry.who == who and entry.state.is_live
        ]

    def _doubt(self, entry: Entry, reason: str, pids: tuple[int, ...], now: float) -> None:
        entry.doubt(reason, pids, now)
        self._tell(entry, f"is not proven free: {reason}")

    def _free(self, entry: Entry, now: float) -> None:
        entry.free(now)
        self._drop_if_over(entry.request_id)

    def _drop_if_over(self, request_id: str) -> None:
        mine = (entry for entry in self._of(request_id) if entry.request_id == request_id)
        if request_id in self._granted and all(entry.state is LeaseState.FREE for entry in mine):
            self._end(request_id)

    def _end(self, request_id: str) -> None:
        self._granted.pop(request_id, None)
        self._over[request_id] = None
        while len(self._over) > _KEPT_REQUESTS:
            del self._over[next(iter(self._over))]

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
        self._serve(now)

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
        for entry in self._entries.values():
            if entry.deadline() > now:
                continue
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
            self._end(request.request_id)
            self._effects.append(Expired(request.request_id, why))
        self._serve(now)

    def next_deadline(self) -> float:
        """When ``pass_time`` is due at the latest; infinity when never."""
        entries = min((entry.deadline() for entry in self._entries.values()), default=_NEVER)
        return min(entries, self._queue.deadline())

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away: nobody's silence counts for that long."""
        for entry in self._entries.values():
            entry.extend(seconds)
        self._queue.extend(seconds)

    # -- out -------------------------------------------------------------------------------

    def take_effects(self) -> list[BookEffect]:
        """What has happened since the last time."""
        taken, self._effects = self._effects, []
        return taken

    def stuck(self, uuids: Iterable[str]) -> tuple[str, ...]:
        """Those of them that an agent may find free: unproven, or seen in the hands of somebody
        that this book knows nothing of."""
        entries = (self._entry(uuid) for uuid in uuids)
        return tuple(entry.uuid for entry in entries if entry.may_be_proven)

    def explain(
        self, request: LeaseRequest, who: str = "", now: float | None = None
    ) -> tuple[str, ...]:
        """Who has what the request waits for, or ``who`` in it: a sentence for each GPU that it
        cannot have, with ``now`` also for how long."""
        wants = [want for want in request.wants if who in ("", want.who)]
        short = shortage(request)
        texts = dict.fromkeys(short[want.who] for want in wants if want.who in short)
        return (*texts, *self._queue.explain(request, wants, self._entries, now))

    def views(self) -> list[LeaseView]:
        """All GPUs, by host and index."""
        ordered = sorted(self._entries.values(), key=lambda each: (each.hostname, each.index))
        return [entry.view() for entry in ordered]

    def holders(self) -> dict[str, str]:
        """The requests of the leases that live, by UUID."""
        return {
            uuid: entry.request_id for uuid, entry in self._entries.items() if entry.state.is_live
        }

    def view(self, uuid: str) -> LeaseView:
        """Raises UnknownGpu."""
        return self._entry(uuid).view()

    def _entry(self, uuid: str) -> Entry:
        entry = self._entries.get(uuid)
        if entry is None:
            raise UnknownGpu(f"this coordinator knows no GPU {uuid}", {"uuid": uuid})
        return entry

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _tell(self, entry: Entry, text: str) -> None:
        about = f" (last: {entry.who} of {entry.holder})" if entry.holder else ""
        self._effects.append(
            Told(entry.uuid, f"GPU {entry.uuid} on {entry.hostname}{about} {text}")
        )

    def check_invariants(self) -> None:
        """What must hold between events. Raises AssertionError."""
        numbers = [entry.token.number for entry in self._entries.values() if entry.token]
        assert len(set(numbers)) == len(numbers), "a token was given twice"
        assert max(numbers, default=0) <= self._number, "a token from the future"
        for entry in self._entries.values():
            entry.check_invariants()
            if entry.state.is_live:
                granted = self._granted.get(entry.request_id)
                assert granted is not None, f"{entry.uuid} is held by nobody's request"
                assert granted.tokens[entry.uuid] == entry.token, "two have the GPU"
                assert entry.uuid in granted.uuids[entry.who], "held by the wrong one"
        for request_id in self._granted:
            mine = [each for each in self._of(request_id) if each.request_id == request_id]
            assert any(each.state is not LeaseState.FREE for each in mine), "kept, and over"
            assert request_id not in self._queue, "waits for what it has"
            assert request_id not in self._over, "is over, and has something"
        self._queue.check_invariants(self._entries)
