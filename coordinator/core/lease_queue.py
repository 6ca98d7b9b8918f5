"""Requests for GPUs that wait, in the order in which they came. Used by ``lease_book`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from coordinator.core.gpu import LeaseRequest, Want
from coordinator.core.lease_entry import Entry

Chosen = dict[str, tuple[str, ...]]
"""The UUIDs by who wanted them."""


@dataclass(slots=True)
class _Waiting:
    request: LeaseRequest
    deadline: float


class Queue:
    """First come, first served, for each GPU; requests that have none in common do not wait for
    each other."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, request: LeaseRequest, now: float) -> None:
        """At the end."""
        self._waiting[request.request_id] = _Waiting(request, now + request.patience)

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
                wanted_before.update(uuid for want in waiting.request.wants for uuid in want.uuids)
            else:
                del self._waiting[request_id]
                yield waiting.request, chosen

    def expire(self, now: float) -> list[LeaseRequest]:
        """Those whose patience has ended; they are in the queue no longer."""
        over = [each.request for each in self._waiting.values() if each.deadline <= now]
        for request in over:
            del self._waiting[request.request_id]
        return over

    def deadline(self) -> float:
        """Of the least patient; infinity when nobody waits."""
        return min((each.deadline for each in self._waiting.values()), default=float("inf"))

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away for so long."""
        for waiting in self._waiting.values():
            waiting.deadline += seconds

    def explain(
        self, request: LeaseRequest, wants: Iterable[Want], entries: Mapping[str, Entry]
    ) -> tuple[str, ...]:
        """Who or what is in the way of each GPU that the request cannot have now."""
        sentences: dict[str, None] = {}
        for uuid in dict.fromkeys(uuid for want in wants for uuid in want.uuids):
            entry = entries[uuid]
            if entry.request_id == request.request_id and entry.state.is_live:
                continue
            obstacle = entry.obstacle() or self._waited_for(uuid, request)
            if obstacle:
                sentences[obstacle] = None
        return tuple(sentences)

    def _waited_for(self, uuid: str, request: LeaseRequest) -> str:
        for request_id, waiting in self._waiting.items():
            if request_id == request.request_id:
                return ""
            if any(uuid in want.uuids for want in waiting.request.wants):
                return f"GPU {uuid} is free, but {waiting.request.holder} waits for it longer"
        return ""


def _choose(request: LeaseRequest, entries: Mapping[str, Entry], taken: set[str]) -> Chosen | None:
    """GPUs for everybody in the request, or None. The pickiest chooses first; among those that
    have one and the same set to choose from, which is how gangs come, no choice can be wrong."""
    chosen: Chosen = {}
    used = set(taken)
    for want in sorted(request.wants, key=lambda want: len(want.uuids)):
        free = [
            uuid
            for uuid in dict.fromkeys(want.uuids)
            if uuid not in used and entries[uuid].is_grantable
        ]
        if len(free) < want.count:
            return None
        chosen[want.who] = tuple(free[: want.count])
        used.update(chosen[want.who])
    return chosen
