"""Workers, feeders and a driver around the pure cores of a feed: the simplest things that behave
like the real ones. Rows are numbers, so that everybody can see where each of them went.

Messages travel on links that keep their order and nothing else; a random choice says what happens
next. Queues are bounded, feeders die and are tried again, consumers begin late and stop early.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from executor_agent.core import feed_spread
from executor_agent.core import feed_steps as steps
from executor_agent.core.feed_ledger import Begun, Closed, Ledger, merged
from executor_agent.core.feed_values import FeedEndpoint, Range

Action = Callable[[], None]


@dataclass
class Rows:
    """One epoch in one worker. ``read``: rows that the consumer has; they are the first ones."""

    ids: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    released: int = 0
    is_closed: bool = False


class Worker:
    """A member that is fed. ``room``: rows that its queue holds."""

    def __init__(self, name: str, batch_size: int, equal: bool, room: int) -> None:
        self.name = name
        self.batch_size = batch_size
        self.equal = equal
        self.room = room
        self.ledger = Ledger()
        self.epochs: dict[int, Rows] = {}
        self.commands: deque[dict[str, Any]] = deque()
        self.words: deque[steps.Event] = deque()
        self.said: dict[int, int] = {}
        self.reads = False
        self.stopped: str | None = None
        self.ended: str | None = None

    @property
    def takes_rows(self) -> bool:
        return self.stopped is None and self.ended is None

    def rows(self, epoch: int) -> Rows:
        return self.epochs.setdefault(epoch, Rows())

    def has_room(self, epoch: int, count: int) -> bool:
        held = sum(len(rows.ids) - len(rows.read) for rows in self.epochs.values())
        if not held or held + count <= self.room:
            return True
        if not self.equal or not self.reads:
            return False
        rows = self.rows(epoch)
        return len(rows.ids) - rows.released * self.batch_size < self.batch_size

    def say_arrived(self, epoch: int) -> None:
        self.said[epoch] = len(self.rows(epoch).ids)
        self.words.append(steps.Arrived(self.name, epoch, self.said[epoch]))

    def begin_to_read(self) -> None:
        self.reads = True
        self.words.append(steps.Reads(self.name, self.batch_size, self.equal))

    def stop(self) -> None:
        for epoch in self.epochs:
            self.say_arrived(epoch)
        self.stopped = "had enough"
        self.words.append(steps.Stopped(self.name, self.stopped))

    def may_read(self) -> Rows | None:
        """Where the consumer is, if it can go on."""
        for _, rows in sorted(self.epochs.items()):
            limit = rows.released * self.batch_size if self.equal else len(rows.ids)
            if len(rows.read) < limit:
                return rows
            if not rows.is_closed:
                return None
        return None

    def read(self, rows: Rows) -> None:
        begin = len(rows.read)
        rows.read += rows.ids[begin : begin + self.batch_size]


class Attempt:
    """One attempt of a task to deliver a partition."""

    def __init__(self, world: World, epoch: int, part: int, number: int) -> None:
        self.world = world
        self.epoch, self.part, self.number = epoch, part, number
        self.waiting = deque(world.batches_of(part, number))
        self.in_flight: dict[str, deque[tuple[int, list[int]]]] = {}
        self.heard: dict[str, int] = {}
        taken: list[Range] = []
        for worker in world.workers.values():
            begun = worker.ledger.begin(epoch, part, number, world.deterministic)
            assert isinstance(begun, Begun), begun
            taken += begun.taken
            self.in_flight[worker.name] = deque()
            self.heard[worker.name] = len(worker.rows(epoch).ids)
        if world.deterministic:
            self.waiting = deque(without(merged(taken), self.waiting))
        self.is_dead = False

    @property
    def is_done(self) -> bool:
        return not self.waiting and not any(self.in_flight.values())

    def actions(self) -> Iterator[Action]:
        if not self.is_dead and self.waiting and self.target() is not None:
            yield self.send
        for name, batches in self.in_flight.items():
            worker = self.world.workers[name]
            is_last = self.world.flushes and not self.waiting and not self.is_dead
            if (
                batches
                and worker.takes_rows
                and (is_last or worker.has_room(self.epoch, len(batches[0][1])))
            ):
                yield partial(self.enter, worker)
            if batches and not worker.takes_rows:
                yield partial(self.take_back, name)

    def target(self) -> str | None:
        targets = [
            feed_spread.Target(
                name,
                self.heard[name] + sum(len(ids) for _, ids in batches),
                feed_spread.CREDIT - len(batches) if self.world.workers[name].takes_rows else 0,
                is_local=name == f"worker:{self.part % len(self.world.workers)}",
            )
            for name, batches in self.in_flight.items()
        ]
        return feed_spread.choose(targets, len(self.waiting[0][1]))

    def send(self) -> None:
        name = self.target()
        assert name is not None
        self.in_flight[name].append(self.waiting.popleft())

    def enter(self, worker: Worker) -> None:
        """The worker takes a batch from its connection, and acknowledges it. Batches of one that
        is dead come out of its connection still."""
        start, ids = self.in_flight[worker.name].popleft()
        rows = worker.rows(self.epoch)
        if worker.ledger.took(self.epoch, self.part, self.number, start, len(ids)):
            assert not self.is_dead or self.world.youngest(self.part) is self
            rows.ids += ids
        self.heard[worker.name] = len(rows.ids)

    def take_back(self, name: str) -> None:
        self.waiting.extend(self.in_flight[name])
        self.in_flight[name].clear()


class Standstill(AssertionError):
    """Nothing can happen any more, and the train has not ended."""


class World:
    def __init__(
        self, seed: int, *, equal: bool, deterministic: bool, flushes: bool = True
    ) -> None:
        self.choose = choose = random.Random(seed)
        self.equal, self.deterministic, self.flushes = equal, deterministic, flushes
        self.workers: dict[str, Worker] = {}
        for index in range(choose.choice([1, 2, 2, 2, 3, 5])):
            name, batch_size = f"worker:{index}", choose.choice([1, 2, 4, 4, 7, 16])
            self.workers[name] = Worker(name, batch_size, equal, room=choose.choice([1, 8, 30]))
        self.partitions = self.new_partitions()
        self.row_count = sum(self.partitions)
        self.epochs = choose.choice([1, 1, 2, 3])
        self.epoch = 1
        self.left_to_die = choose.choice([0, 0, 1, 3])
        self.left_to_stop = choose.choice([0, 0, 0, 1, len(self.workers)])
        self.attempts: dict[int, list[Attempt]] = {}
        self.attempt_count = 0
        self.asked = False
        self.closed: dict[int, steps.Closed] = {}
        self.ended: list[str] = []
        endpoints = [FeedEndpoint(name, "host", 1) for name in self.workers]
        self.keeper = steps.Keeper("input", 1, self.epochs, endpoints)
        self.carry_out(self.keeper.begin(0.0))

    def new_partitions(self) -> list[int]:
        """How many rows each has: none, few, or nearly all in one."""
        choose = self.choose
        if choose.random() < 0.15:
            return [0] * choose.choice([0, 1, 4])
        small = [choose.choice([0, 1, 5, 20]) for _ in range(choose.choice([0, 1, 4]))]
        return [*small, choose.choice([1, 15, 60, 200])]

    def batches_of(self, part: int, attempt: int) -> Iterator[tuple[int, list[int]]]:
        begin = sum(self.partitions[:part])
        ids = list(range(begin, begin + self.partitions[part]))
        if not self.deterministic:
            random.Random(attempt).shuffle(ids)
        start = 0
        while start < len(ids):
            size = self.choose.choice([1, 3, 10])
            yield start, ids[start : start + size]
            start += size

    def youngest(self, part: int) -> Attempt:
        return self.attempts[part][-1]

    # -- what can happen -------------------------------------------------------------------

    def run(self) -> None:
        """Until the train has ended and everybody has seen it."""
        for _ in range(50_000):
            possible = list(self.actions())
            if possible:
                self.choose.choice(possible)()
            elif self.ended:
                return
            else:
                raise Standstill(self.keeper.diagnosis())
        raise AssertionError(f"it never ends: {self.keeper.diagnosis()}")

    def actions(self) -> Iterator[Action]:
        for worker in self.workers.values():
            if worker.commands:
                yield partial(self.obey, worker)
            if worker.words:
                yield partial(self.hear, worker)
            if not worker.reads:
                yield worker.begin_to_read
            elif (rows := worker.may_read()) and worker.stopped is None:
                yield partial(worker.read, rows)
            for epoch, rows in worker.epochs.items():
                if worker.takes_rows and worker.said.get(epoch, 0) != len(rows.ids):
                    yield partial(worker.say_arrived, epoch)
            if self.left_to_stop and worker.stopped is None and self.choose.random() < 0.01:
                yield partial(self.stop, worker)
        yield from self.driver_actions()

    def driver_actions(self) -> Iterator[Action]:
        if self.ended or not self.keeper.is_ready or not self.takes_rows:
            return
        for part in range(len(self.partitions)):
            if part not in self.attempts:
                yield partial(self.attempt, part)
                continue
            for each in self.attempts[part]:
                yield from each.actions()
            if self.left_to_die and not self.youngest(part).is_done:
                yield partial(self.die, part)
        begun = len(self.attempts) == len(self.partitions)
        if begun and not self.asked and all(self.youngest(part).is_done for part in self.attempts):
            yield self.close

    @property
    def takes_rows(self) -> bool:
        return any(worker.takes_rows for worker in self.workers.values())

    def attempt(self, part: int) -> None:
        self.attempt_count += 1
        self.attempts.setdefault(part, []).append(
            Attempt(self, self.epoch, part, self.attempt_count)
        )

    def die(self, part: int) -> None:
        """And be tried again; what it has sent is still on its way."""
        self.left_to_die -= 1
        self.youngest(part).is_dead = True
        self.attempt(part)

    def stop(self, worker: Worker) -> None:
        self.left_to_stop -= 1
        worker.stop()

    def close(self) -> None:
        self.asked = True
        self.tell(steps.CloseAsked(self.epoch))

    # -- between the keeper and the workers --------------------------------------------------

    def hear(self, worker: Worker) -> None:
        self.tell(worker.words.popleft())

    def tell(self, event: steps.Event) -> None:
        self.carry_out(self.keeper.handle(event, 0.0))

    def carry_out(self, effects: tuple[steps.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case steps.Say(name, message):
                    self.workers[name].commands.append(dict(message))
                case steps.Closed():
                    self.closed[effect.epoch] = effect
                    self.epoch, self.asked, self.attempts = effect.epoch + 1, False, {}
                case steps.Ended(reason):
                    self.ended.append(reason)
                case steps.Trouble(text):
                    raise AssertionError(text)

    def obey(self, worker: Worker) -> None:
        command = worker.commands.popleft()
        match command.pop("say"):
            case "open":
                worker.words.append(steps.Opened(worker.name))
            case "release":
                rows = worker.rows(command["epoch"])
                assert command["steps"] > rows.released
                assert command["steps"] * worker.batch_size <= len(rows.ids), "not there"
                rows.released = command["steps"]
            case "freeze":
                worker.ledger.close(command["epoch"])
                count = len(worker.rows(command["epoch"]).ids)
                worker.words.append(steps.Frozen(worker.name, command["epoch"], count))
            case "move":
                self.move(worker, **command)
            case "closed":
                self.finish(worker, **command)
            case "end":
                worker.ended = command["reason"]

    def move(self, worker: Worker, epoch: int, to: dict[str, Any], rows: int) -> None:
        mine = worker.rows(epoch)
        kept = max(mine.released * worker.batch_size, len(mine.read))
        given = min(rows, len(mine.ids) - kept)
        boundary = len(mine.ids) - given
        taker = self.workers[to["member"]]
        taker.rows(epoch).ids += mine.ids[boundary:]
        del mine.ids[boundary:]
        worker.words.append(steps.Moved(worker.name, epoch, given))

    def finish(self, worker: Worker, epoch: int, steps: int | None, rows: int) -> None:
        mine = worker.rows(epoch)
        assert isinstance(worker.ledger.begin(epoch, 0, 10**6), Closed) or worker.stopped
        assert len(mine.ids) == rows, "the keeper has counted wrong"
        mine.is_closed = True
        if steps is not None:
            assert steps >= mine.released
            mine.released = steps
            del mine.ids[steps * worker.batch_size :]


def without(
    taken: tuple[Range, ...], batches: deque[tuple[int, list[int]]]
) -> Iterator[tuple[int, list[int]]]:
    """What of a partition's batches is not taken yet."""
    for start, ids in batches:
        for begin, end in outside(taken, start, start + len(ids)):
            yield begin, ids[begin - start : end - start]


def outside(ranges: tuple[Range, ...], start: int, end: int) -> Iterator[Range]:
    for first, after in ranges:
        if start < min(first, end):
            yield start, min(first, end)
        start = max(start, after)
    if start < end:
        yield start, end
