"""Direct use of the book of GPUs, and the calls that wait for its grants.

A call that is cancelled, or whose client is gone, gives back its place in the queue; and what was
granted in the same moment, because nobody has learned of it. The same request may be asked several
times at once, by a client that comes back on another stream before its first one is known to have
broken: it is given up when the last of those who ask is gone without an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator.core.errors import GpusUnavailable, LeaseLost
from coordinator.core.gpu import LeaseRequest
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_news import Acquired

KEPT_EVENTS = 1_000
"""So many sentences about GPUs are remembered."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """A sentence about a GPU, for people; ``at`` in Unix seconds."""

    at: float
    text: str


@dataclass(slots=True)
class _Waiting:
    """The calls that wait for one request."""

    request: LeaseRequest
    calls: set[asyncio.Future[Acquired]] = field(default_factory=set)


class GpuRequests:
    """Use inside one event loop. ``apply``: calls what it is given, then carries out what follows
    from it for everybody else."""

    def __init__(
        self,
        book: LeaseBook,
        clock: Callable[[], float],
        apply: Callable[[Callable[[], object]], None],
    ) -> None:
        self._book = book
        self._clock = clock
        self._apply = apply
        self._waiting: dict[str, _Waiting] = {}
        self._unanswered: dict[str, set[object]] = {}  # who asks for what nobody has learned of
        self.events: deque[GpuEvent] = deque(maxlen=KEPT_EVENTS)

    def use(self, use: Callable[[LeaseBook, float], _T]) -> _T:
        """One direct use of the book, now. Raises what ``use`` raises."""
        result: list[_T] = []
        self._apply(lambda: result.append(use(self._book, self._clock())))
        return result[0]

    @property
    def waiting(self) -> tuple[str, ...]:
        """The requests that calls wait for."""
        return tuple(self._waiting)

    async def acquire(self, request: LeaseRequest, asker: object) -> Acquired:
        """Waits for all GPUs of the request, or none. ``asker`` calls ``learned`` or
        ``broken_off`` in the end, unless this raises: InvalidRun, UnknownGpu, LeaseLost, and
        GpusUnavailable when they were not to be had within its patience."""
        waiting = self._waiting.setdefault(request.request_id, _Waiting(request))
        call: asyncio.Future[Acquired] = asyncio.get_running_loop().create_future()
        waiting.calls.add(call)  # first, so that no grant is missed
        try:
            granted = self.acquire_now(request, asker)
            if granted is None:
                granted = await call
                self._check_holds(request)
            return granted
        except BaseException:
            self.broken_off(request, asker)
            raise
        finally:
            waiting.calls.discard(call)
            if not waiting.calls:
                del self._waiting[request.request_id]

    def acquire_now(self, request: LeaseRequest, asker: object) -> Acquired | None:
        """All GPUs of the request, if they are to be had without waiting; None: ``acquire`` it,
        at once, because it has its place in the queue already. Else as ``acquire``."""
        # Who holds it knows of it, unless the first answers are still on their way.
        is_known = self._book.holds(request.request_id)
        if request.request_id in self._unanswered or not is_known:
            self._unanswered.setdefault(request.request_id, set()).add(asker)
        try:
            granted = self.use(lambda book, now: book.acquire(request, now))
            if granted is not None:
                self._check_holds(request)
        except BaseException:
            self.broken_off(request, asker)
            raise
        return granted

    def learned(self, request: LeaseRequest) -> None:
        """An answer has gone out: what was granted is its holder's to give back."""
        self._unanswered.pop(request.request_id, None)

    def broken_off(self, request: LeaseRequest, asker: object) -> None:
        """The asker will never have an answer. If it was the last one, nobody knows of the grant,
        and nobody waits for one."""
        askers = self._unanswered.get(request.request_id)
        if askers is None or asker not in askers:
            return
        askers.remove(asker)
        if not askers:
            del self._unanswered[request.request_id]
            self._give_up(request)

    def _check_holds(self, request: LeaseRequest) -> None:
        if not self._book.holds(request.request_id):
            self.learned(request)  # what is left of it is its holder's to give back
            raise LeaseLost(
                f"the request {request.request_id} was granted before, and some of its leases "
                "are over since: release what is left, and ask with another id"
            )

    def _give_up(self, request: LeaseRequest) -> None:
        def give_up(book: LeaseBook, now: float) -> None:
            book.withdraw(request.request_id, now)
            for want in request.wants:
                book.return_unused(request.request_id, want.who, now)

        self.use(give_up)

    # -- effects ---------------------------------------------------------------------------

    def granted(self, request_id: str) -> None:
        """The request has all of its GPUs."""
        waiting = self._waiting.get(request_id)
        if waiting is None:
            return
        acquired = self._book.acquire(waiting.request, self._clock())
        assert acquired is not None, f"{request_id} was said to be granted"
        for call in waiting.calls:
            if not call.done():
                call.set_result(acquired)

    def refused(self, request_id: str, why: tuple[str, ...]) -> None:
        """Its patience has ended."""
        waiting = self._waiting.get(request_id)
        if waiting is None:
            return
        reasons = "; ".join(why) or "each was free at times, but never all of them at once"
        patience = waiting.request.patience
        for call in waiting.calls:
            if not call.done():
                text = f"the GPUs were not to be had within {patience:g} s: {reasons}"
                call.set_exception(GpusUnavailable(text))

    def note(self, at: float, text: str) -> None:
        """For the history."""
        self.events.append(GpuEvent(at, text))
