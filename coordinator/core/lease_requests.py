"""Requests for GPUs that were granted, and those that are over. Used by ``lease_book`` alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.core.durable import Constant, Ledger, Records
from coordinator.core.durable_values import codec
from coordinator.core.gpu import LeaseToken
from coordinator.core.lease_news import Acquired

KEPT_OVER = 10_000
"""So many requests that are over are remembered, so that none of them is taken for a new one."""


@dataclass(frozen=True, slots=True)
class _Over:
    number: int


_GRANT, _OVER = codec(Acquired), codec(_Over)


class Requests:
    """``_over``: the oldest first, by a number that grows; ``_uuids``: of the leases that were
    granted, by the number of their tokens."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self._granted: dict[str, Acquired] = {}
        self._uuids: dict[int, str] = {}
        self._over: dict[str, int] = {}
        self._ended = 0

    def restore(self, records: Records) -> None:
        """Raises BrokenRecord."""
        for request_id in records.keys("grant"):
            self._remember(records.value("grant", request_id, _GRANT))
        over = [(records.value("over", each, _OVER).number, each) for each in records.keys("over")]
        self._over = {request_id: number for number, request_id in sorted(over)}
        self._ended = max(self._over.values(), default=0)

    def _remember(self, granted: Acquired) -> None:
        self._granted[granted.request_id] = granted
        self._uuids.update((token.number, uuid) for uuid, token in granted.tokens.items())

    def __iter__(self) -> Iterator[str]:
        """Those that have something."""
        return iter(self._granted)

    def granted(self, request_id: str) -> Acquired | None:
        """What a request was granted, while it has any of it."""
        return self._granted.get(request_id)

    def uuid(self, request_id: str, token: LeaseToken) -> str | None:
        """Of which GPU that is the lease; None when it was not granted to this request."""
        granted, uuid = self._granted.get(request_id), self._uuids.get(token.number, "")
        return uuid if granted is not None and granted.tokens.get(uuid) == token else None

    def is_over(self, request_id: str) -> bool:
        """Whether it had its answer, and has nothing any more."""
        return request_id in self._over

    def grant(self, granted: Acquired) -> None:
        """It has all of its GPUs."""
        self._remember(granted)
        if self._ledger is not None:
            self._ledger.put(("grant", granted.request_id), Constant(_GRANT, granted))

    def end(self, request_id: str) -> None:
        """It has nothing any more, and never will."""
        granted = self._granted.pop(request_id, None)
        self._ended += 1
        self._over[request_id] = self._ended
        if self._ledger is not None:
            self._ledger.put(("over", request_id), Constant(_OVER, _Over(self._ended)))
        if granted is not None:
            for token in granted.tokens.values():
                del self._uuids[token.number]
            if self._ledger is not None:
                self._ledger.remove(("grant", request_id))
        while len(self._over) > KEPT_OVER:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = next(iter(self._over))
        del self._over[oldest]
        if self._ledger is not None:
            self._ledger.remove(("over", oldest))
