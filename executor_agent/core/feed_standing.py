"""How one train of a feed stands: its workers, its open epochs, and what it waits for. PURE.

Owns: what the keeper (``feed_steps``) knows. It decides nothing, but says in words what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from executor_agent.core.feed_events import Reads
from executor_agent.core.feed_shares import Move
from executor_agent.core.feed_values import FeedEndpoint

WORKERS_NAMED: Final = 8  # of those whose rows a diagnosis gives


class Phase(Enum):
    """Where an epoch stands."""

    OPEN = "open"
    CLOSING = "closing"
    FREEZING = "freezing"
    MOVING = "moving"


@dataclass(slots=True)
class Worker:
    """What is known of one worker. ``stopped``: why, once it has."""

    endpoint: FeedEndpoint
    heard_at: float = 0.0
    has_opened: bool = False
    reads: Reads | None = None
    stopped: str | None = None
    is_gone: bool = False

    @property
    def name(self) -> str:
        """Of the member."""
        return self.endpoint.member


@dataclass(slots=True)
class Epoch:
    """An epoch that is not closed. ``released``: steps that all may take. ``frozen``: workers whose
    rows are counted. ``moves``: by giver; it does the first."""

    number: int
    rows: dict[str, int]
    phase: Phase = Phase.OPEN
    released: int = 0
    frozen: set[str] = field(default_factory=set)
    moves: dict[str, deque[Move]] = field(default_factory=dict)


class Standing:
    """The workers and the open epochs of a train."""

    def __init__(self, workers: Sequence[FeedEndpoint]) -> None:
        self.workers = {endpoint.member: Worker(endpoint) for endpoint in workers}
        self.epochs: dict[int, Epoch] = {}
        self.last_closed: int | None = None

    def epoch(self, number: int) -> Epoch | None:
        """None: it is closed. Epochs are closed in the order of their numbers."""
        if self.last_closed is not None and number <= self.last_closed:
            return None
        if number not in self.epochs:
            self.epochs[number] = Epoch(number, dict.fromkeys(self.workers, 0))
        return self.epochs[number]

    def next_to_close(self) -> Epoch | None:
        """The first of those that the driver has delivered."""
        asked = [epoch for epoch in self.epochs.values() if epoch.phase is not Phase.OPEN]
        return min(asked, key=lambda epoch: epoch.number, default=None)

    @property
    def is_equal(self) -> bool | None:
        """Whether all take the same number of steps; None while nobody has read."""
        return next((one.reads.equal for one in self.workers.values() if one.reads), None)

    @property
    def is_ready(self) -> bool:
        """Whether all workers have opened the train, or stopped before they could."""
        return all(one.has_opened or one.stopped is not None for one in self.workers.values())

    @property
    def has_every_reader(self) -> bool:
        """Whether all workers read."""
        return all(one.reads for one in self.workers.values())

    @property
    def may_close(self) -> bool:
        """Whether enough is known to count an epoch's rows."""
        if not self.is_ready or self.is_equal is None:
            return False
        return self.has_every_reader or not self.is_equal

    def batch_sizes(self) -> dict[str, int]:
        """Of all that read in batches."""
        return {
            one.name: one.reads.batch_size
            for one in self.workers.values()
            if one.reads and one.reads.batch_size
        }

    def unfrozen(self, epoch: Epoch) -> list[str]:
        """Whose rows are not counted yet. One that has stopped had said all before."""
        return [
            one.name
            for one in self.workers.values()
            if one.stopped is None and one.name not in epoch.frozen
        ]

    def in_words(self, feed: str, now: float | None) -> Iterator[str]:
        """A sentence for each thing that is missing, and for the rows of each open epoch."""
        for one in self.workers.values():
            when = "" if now is None else f" (last heard of {now - one.heard_at:.0f} s ago)"
            if one.stopped is not None:
                yield f"{one.name} has stopped: {one.stopped}"
            elif not one.has_opened:
                yield f"{one.name} has not opened the feed {feed!r}{when}"
            elif one.reads is None:
                yield f"{one.name} does not read the feed {feed!r} yet{when}"
        for epoch in self.epochs.values():
            yield from self._epoch_in_words(epoch)

    def _epoch_in_words(self, epoch: Epoch) -> Iterator[str]:
        def share(name: str) -> int:
            return epoch.rows[name] // sizes[name] if name in sizes else epoch.rows[name]

        sizes = self.batch_sizes() if self.is_equal and self.has_every_reader else {}
        names = sorted(epoch.rows, key=share)
        rows = ", ".join(f"{name} {epoch.rows[name]}" for name in names[:WORKERS_NAMED])
        more = f" and {len(names) - WORKERS_NAMED} more" if len(names) > WORKERS_NAMED else ""
        steps = f"; steps released: {epoch.released}" if sizes else ""
        yield f"epoch {epoch.number}: rows, the fewest first: {rows}{more}{steps}"
        if epoch.phase is Phase.FREEZING:
            for name in self.unfrozen(epoch):
                yield f"epoch {epoch.number} is closing: {name} has not counted its rows yet"
        for giver, moves in epoch.moves.items():
            yield (
                f"epoch {epoch.number} is closing: {giver} has not given {moves[0].rows} rows to"
                f" {moves[0].taker} yet"
            )
