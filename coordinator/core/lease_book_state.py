"""What the book of GPUs is at any moment, without what happens to it (``lease_book``): its picture
for others, its next deadline, and how it comes back after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import ClassVar

from coordinator.core.deadlines import Deadlines
from coordinator.core.durable import BrokenRecord, Ledger, Records, Tracked
from coordinator.core.durable_values import codec
from coordinator.core.errors import UnknownGpu
from coordinator.core.gpu import LeaseRequest, LeaseState, LeaseView
from coordinator.core.lease_entry import Entry
from coordinator.core.lease_news import BookEffect
from coordinator.core.lease_queue import Queue, shortage
from coordinator.core.lease_requests import Requests


class BookState(Tracked):
    """Mutable state of the book. ``_number``: the last one given, to a lease or an inspection."""

    DURABLE: ClassVar = {"_number": codec(int)}

    def __init__(
        self, coordinator_id: str, last_number: int = 0, ledger: Ledger | None = None
    ) -> None:
        self.track(ledger, "book", "numbers")
        self.coordinator_id = coordinator_id
        self._number = last_number
        self._entries: dict[str, Entry] = {}
        self._deadlines: Deadlines[Entry] = Deadlines()
        self._queue = Queue()
        self._requests = Requests(ledger)
        self._effects: list[BookEffect] = []

    # -- over a restart --------------------------------------------------------------------

    def restore(self, records: Records) -> None:
        """As it was, but that all who hold a lease have its full time to be heard of. Without what
        waits: a run asks for it with ``queue_again``, any other client by itself; ``serve`` must
        follow. Raises BrokenRecord."""
        records.load(self)
        for uuid in records.keys("gpu"):
            entry = self._entries[uuid] = Entry.restore(uuid, records, self._ledger)
            self._deadlines.arm(uuid, entry)
        self._requests.restore(records)
        for request_id in self._requests:
            if not self._uuids_of(request_id) <= self._entries.keys():
                raise BrokenRecord(("grant", request_id), "one of its GPUs is not known")
        for uuid, request_id in self.holders().items():
            if uuid not in self._uuids_of(request_id):
                raise BrokenRecord(("gpu", uuid), f"{request_id} was not granted it")

    def _uuids_of(self, request_id: str) -> Set[str]:
        granted = self._requests.granted(request_id)
        return frozenset() if granted is None else granted.tokens.keys()

    def queue_again(self, request: LeaseRequest, now: float) -> None:
        """After a restart: a request that waited takes its place again."""
        request_id = request.request_id
        if not self._requests.granted(request_id) and not self._requests.is_over(request_id):
            self._queue.add(request, now)

    # -- time ------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When ``pass_time`` is due at the latest; infinity when never."""
        return min(self._deadlines.next(), self._queue.deadline())

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
        ordered = sorted(
            self._entries.values(), key=lambda each: (each.hostname, each.index, each.uuid)
        )
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

    def _of(self, request_id: str) -> Iterator[Entry]:
        """What a request has, or had last."""
        mine = (self._entries[uuid] for uuid in self._uuids_of(request_id))
        return (entry for entry in mine if entry.request_id == request_id)

    def _of_holder(self, request_id: str, who: str) -> list[Entry]:
        granted = self._requests.granted(request_id)
        mine = () if granted is None else granted.uuids.get(who, ())
        return [e for e in (self._entries[uuid] for uuid in mine) if e.request_id == request_id]

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def check_invariants(self) -> None:
        """What must hold between events. Raises AssertionError."""
        numbers = [entry.token.number for entry in self._entries.values() if entry.token]
        assert len(set(numbers)) == len(numbers), "a token was given twice"
        assert max(numbers, default=0) <= self._number, "a token from the future"
        deadline = self._deadlines.next()
        for entry in self._entries.values():
            entry.check_invariants()
            if entry.state.is_live:
                granted = self._requests.granted(entry.request_id)
                assert granted is not None, f"{entry.uuid} is held by nobody's request"
                assert granted.tokens[entry.uuid] == entry.token, "two have the GPU"
                assert entry.uuid in granted.uuids[entry.who], "held by the wrong one"
            assert deadline <= entry.next_deadline(), "a deadline is forgotten"
        for request_id in self._requests:
            mine = self._of(request_id)
            assert any(each.state is not LeaseState.FREE for each in mine), "kept, and over"
            assert request_id not in self._queue, "waits for what it has"
            assert not self._requests.is_over(request_id), "is over, and has something"
        self._queue.check_invariants(self._entries)
