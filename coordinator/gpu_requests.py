"""Direct use of the book of GPUs, and the calls that wait for its grants.

A call that is cancelled, or whose client is gone, gives back its place in the queue; and what was
granted in the same moment, because nobody has learned of it.
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
    """The calls that wait for one request. ``is_answered``: one of them has its answer."""

    request: LeaseRequest
    calls: set[asyncio.Future[Acquired]] = field(default_factory=set)
    is_answered: bool = False


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
        self._unlearned: dict[str, object] = {}  # granted, and who has not been answered yet
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

    async def acquire(self, request: LeaseRequest, asker: object = None) -> Acquired:
        """Waits for all GPUs of the request, or none. Raises InvalidRun, UnknownGpu, and
        GpusUnavailable when they were not to be had within its patience. ``asker``: whoever will
        call ``learned`` or ``broken_off``; None: nobody."""
        is_new = not self._book.holds(request.request_id)
        waiting = self._waiting.setdefault(request.request_id, _Waiting(request))
        call: asyncio.Future[Acquired] = asyncio.get_running_loop().create_future()
        waiting.calls.add(call)  # first, so that no grant is missed
        try:
            granted = self.use(lambda book, now: book.acquire(request, now))
            granted = granted or await call
            waiting.is_answered = True  # also below: what is left is its holder's to give back
            self._check_holds(request)
            self._expect(request, asker if is_new and len(waiting.calls) == 1 else None)
            return granted
        finally:
            waiting.calls.discard(call)
            if not waiting.calls:
                del self._waiting[request.request_id]
                if not waiting.is_answered:
                    self.give_up(request)

    def acquire_now(self, request: LeaseRequest, asker: object) -> Acquired | None:
        """All GPUs of the request, if they are to be had without waiting; None: ``acquire`` it,
        at once, because it has its place in the queue already. Raises InvalidRun, UnknownGpu,
        LeaseLost."""
        is_new = not self._book.holds(request.request_id)
        granted = self.use(lambda book, now: book.acquire(request, now))
        if granted is not None:
            self._check_holds(request)
            self._expect(request, asker if is_new else None)
        return granted

    def _expect(self, request: LeaseRequest, asker: object) -> None:
        """``asker`` None: others know of the grant, or may."""
        if asker is None:
            self._unlearned.pop(request.request_id, None)
        else:
            self._unlearned[request.request_id] = asker

    def learned(self, request: LeaseRequest, asker: object) -> None:
        """The answer has gone out: what was granted is its holder's to give back."""
        if self._unlearned.get(request.request_id) is asker:
            del self._unlearned[request.request_id]

    def broken_off(self, request: LeaseRequest, asker: object) -> None:
        """The answer will never go out. Unless somebody else has asked for the same since, nobody
        knows of the grant."""
        if self._unlearned.get(request.request_id) is asker:
            del self._unlearned[request.request_id]
            self.give_up(request)

    def _check_holds(self, request: LeaseRequest) -> None:
        if not self._book.holds(request.request_id):
            raise LeaseLost(
                f"the request {request.request_id} was granted before, and some of its leases "
                "are over since: release what is left, and ask with another id"
            )

    def give_up(self, request: LeaseRequest) -> None:
        """Nobody waits for it any more, and nobody has learned of its grant."""

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
