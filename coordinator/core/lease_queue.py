"""Requests for GPUs that wait, in the order in which they came. Used by ``lease_book`` alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.gpu import LeaseRequest, Want
from coordinator.core.lease_entry import Entry

Chosen = dict[str, tuple[str, ...]]
"""The UUIDs by who wanted them."""

_NAMED = 5  # of more only the number is told


@dataclass(slots=True)
class _Waiting:
    request: LeaseRequest
    deadline: float
    uuids: frozenset[str]  # that could serve it, and are kept for it
    since: float


class Queue:
    """First come, first served, for each GPU; requests that have none in common do not wait for
    each other."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, request: LeaseRequest, now: float) -> None:
        """At the end, or where it would be had it come ``request.since``. Nothing is kept for a
        request that can never be served: others would wait for it in vain."""
        uuids = frozenset(uuid for want in request.wants for uuid in want.uuids)
        if shortage(request):
            uuids = frozenset()
        since = now if request.since is None else min(request.since, now)
        waiting = _Waiting(request, now + request.patience, uuids, since)
        self._waiting[request.request_id] = waiting
        self._waiting = dict(sorted(self._waiting.items(), key=lambda item: item[1].since))

    def remove(self, request_id: str) -> None:
        """Raises KeyError."""
        del self._waiting[request_id]

    def take(self, entries: Mapping[str, Entry]) -> Iterator[tuple[LeaseRequest, Chosen]]:
        """The requests that can be served now, in their order; the caller grants each before it
        asks for the next."""
        wanted_before: set[str] = set()
        for request_id, waiting in list(self._waiting.items()):
            chosen = _choose(waiting.request, entries, wanted_before)
            if chosen is None:
                wanted_before |= waiting.uuids
            else:
                del self._waiting[request_id]
                yield waiting.request, chosen

    def overdue(self, now: float) -> list[LeaseRequest]:
        """Those whose patience has ended; the caller removes them."""
        return [each.request for each in self._waiting.values() if each.deadline <= now]

    def deadline(self) -> float:
        """Of the least patient; infinity when nobody waits."""
        return min((each.deadline for each in self._waiting.values()), default=float("inf"))

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away for so long."""
        for waiting in self._waiting.values():
            waiting.deadline += seconds

    def explain(
        self,
        request: LeaseRequest,
        wants: Iterable[Want],
        entries: Mapping[str, Entry],
        now: float | None,
    ) -> tuple[str, ...]:
        """Who or what is in the way of each GPU that the request cannot have now."""
        sentences: dict[str, None] = {}
        for uuid in dict.fromkeys(uuid for want in wants for uuid in want.uuids):
            entry = entries[uuid]
            if entry.request_id == request.request_id and entry.state.is_live:
                continue
            obstacle = entry.obstacle(now) or self._waited_for(uuid, request)
            if obstacle:
                sentences[obstacle] = None
        return tuple(sentences)

    def _waited_for(self, uuid: str, request: LeaseRequest) -> str:
        for request_id, waiting in self._waiting.items():
            if request_id == request.request_id:
                return ""
            if uuid in waiting.uuids:
                return f"GPU {uuid} is free, but {waiting.request.holder} waits for it longer"
        return ""

    def check_invariants(self, entries: Mapping[str, Entry]) -> None:
        """Nobody waits for what it could have. Raises AssertionError."""
        wanted_before: set[str] = set()
        for waiting in self._waiting.values():
            chosen = _choose(waiting.request, entries, wanted_before)
            assert chosen is None, f"{waiting.request.request_id} waits for nothing"
            wanted_before |= waiting.uuids


def shortage(request: LeaseRequest) -> dict[str, str]:
    """Who in the request can never have what it wants, however long all of it waits, because
    others in it want the same; in words. Empty when there is enough for everybody."""
    wants = request.wants
    if _match(wants, {want.who: want.uuids for want in wants}) is not None:
        return {}
    short: dict[str, str] = {}
    for want in wants:
        rivals = [each for each in wants if not set(each.uuids).isdisjoint(want.uuids)]
        uuids = dict.fromkeys(uuid for each in rivals for uuid in each.uuids)
        total = sum(each.count for each in rivals)
        if total > len(uuids):
            names = ", ".join(each.who for each in rivals[:_NAMED])
            more = f" and {len(rivals) - _NAMED} more" if len(rivals) > _NAMED else ""
            short[want.who] = (
                f"{names}{more} want {total} GPUs in all, but there are only {len(uuids)} where "
                f"they are ({', '.join(list(uuids)[:_NAMED])})"
            )
    return short or dict.fromkeys(
        (want.who for want in wants), "its members want more GPUs than there are where they are"
    )


def _choose(request: LeaseRequest, entries: Mapping[str, Entry], taken: set[str]) -> Chosen | None:
    """GPUs for everybody in the request, or None."""
    free: dict[str, Sequence[str]] = {}
    for want in request.wants:
        free[want.who] = [
            uuid
            for uuid in dict.fromkeys(want.uuids)
            if uuid not in taken and entries[uuid].is_grantable
        ]
        if len(free[want.who]) < want.count:
            return None
    return _match(request.wants, free)


def _match(wants: Sequence[Want], candidates: Mapping[str, Sequence[str]]) -> Chosen | None:
    """Finds GPUs for everybody when there is any way to, also where what they can have overlaps
    (two containers of one host that see different parts of it): a bipartite matching."""
    owners: dict[str, str] = {}
    for want in wants:
        for _ in range(want.count):
            if not _give_one(want.who, candidates, owners):
                return None
    chosen: dict[str, list[str]] = {want.who: [] for want in wants}
    for uuid, who in owners.items():
        chosen[who].append(uuid)
    return {who: tuple(sorted(uuids, key=candidates[who].index)) for who, uuids in chosen.items()}


def _give_one(who: str, candidates: Mapping[str, Sequence[str]], owners: dict[str, str]) -> bool:
    """One more GPU for ``who``: one that nobody has, else one whose owner can have another (an
    augmenting path, the shortest)."""
    asked_by: dict[str, str] = {}  # uuid -> who would take it
    gives: dict[str, str] = {}  # who -> the uuid that it would give for another
    asking = deque([who])
    while asking:
        taker = asking.popleft()
        for uuid in candidates[taker]:
            if uuid in asked_by:
                continue
            asked_by[uuid] = taker
            owner = owners.get(uuid)
            if owner is None:
                _hand_on(uuid, who, asked_by, gives, owners)
                return True
            if owner != who and owner not in gives:
                gives[owner] = uuid
                asking.append(owner)
    return False


def _hand_on(
    uuid: str, who: str, asked_by: dict[str, str], gives: dict[str, str], owners: dict[str, str]
) -> None:
    """Along the path, from the GPU that nobody has back to ``who``."""
    while True:
        taker = asked_by[uuid]
        owners[uuid] = taker
        if taker == who:
            return
        uuid = gives[taker]
