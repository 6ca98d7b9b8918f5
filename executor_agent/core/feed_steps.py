"""The keeper of a feed's steps: how many rows each worker may use, and when an epoch is over. PURE.

Owns: one train of one feed, over all its workers. Must not know sockets, threads or the clock:
events come in with the time, effects go out, the keeper's thread interprets them.

    an epoch:  OPEN --the driver has delivered all--> CLOSING --all have opened, and read if steps
               are equal--> FREEZING --all rows are counted--> MOVING --each has its share--> closed

Equal steps: rows are released to all workers in whole steps, so that none begins a step that
another cannot take. Of N rows all take N // (sum of batch sizes) steps; for that rows move from
those that have more than their share to those that have less, as few as possible. Otherwise every
row is for the worker that it arrived at.

The train ends after its last epoch, when the driver says so, or with a reason: with equal steps
when one worker stops, because no other can take a step without it; otherwise when all have. A
worker that is gone without having stopped has taken rows with it, which is an error.

Promises of a worker, without which equal steps stand still: its queue lets a batch in, however many
bytes it holds already, while fewer than one batch size of its rows are not released, and when the
batch's feeder has no more rows for anybody, because then no other worker's rows will make room; it
takes what another one moves to it, and drops it if it has stopped; and rows that are not released
stay there to be moved, also when its consumer has left the epoch early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from executor_agent.core.feed_events import (
    Arrived,
    CloseAsked,
    Closed,
    Effect,
    EndAsked,
    Ended,
    Event,
    Frozen,
    Gone,
    Moved,
    Opened,
    Reads,
    Ready,
    Say,
    Stopped,
    Trouble,
    Word,
)
from executor_agent.core.feed_shares import common_steps, most_steps, plan_moves
from executor_agent.core.feed_standing import Epoch, Phase, Standing, Worker
from executor_agent.core.feed_values import FeedEndpoint

__all__ = [
    "Arrived", "CloseAsked", "Closed", "Effect", "EndAsked", "Ended", "Event", "Frozen", "Gone",
    "Keeper", "Moved", "Opened", "Reads", "Ready", "Say", "Stopped", "Trouble",
]  # fmt: skip

ANSWERS_KEPT: Final = 100  # to `close`; a driver asks again for its last epochs at most


class Keeper:
    """One train of one feed. Time only ever comes in as an argument, in seconds of one clock."""

    def __init__(
        self,
        feed: str,
        train: int,
        epochs: int | None,
        workers: Sequence[FeedEndpoint],
        opening: Mapping[str, int] | None = None,
    ) -> None:
        if not workers:
            raise ValueError(f"nobody to feed: train {train} of the feed {feed!r} has no worker")
        self._feed = feed
        self._train = train
        self._last_epoch = epochs  # None: there is no last one
        self._opening = dict(opening or {})  # what else is said to the workers when it opens
        self._standing = Standing(workers)
        self._answers: dict[int, Closed] = {}
        self._is_ready = False
        self._trouble: Trouble | None = None
        self._ended: Ended | None = None
        self._effects: list[Effect] = []  # of the event being handled

    @property
    def is_ready(self) -> bool:
        """Whether all workers have opened the train."""
        return self._is_ready

    @property
    def is_ended(self) -> bool:
        """Whether the train is over."""
        return self._ended is not None

    def diagnosis(self, now: float | None = None) -> list[str]:
        """What the train waits for, and where its rows are: a sentence each."""
        if self._ended is not None:
            return [f"the train is over: {self._ended.reason or 'all of it was delivered'}"]
        return list(self._standing.in_words(self._feed, now))

    def begin(self, now: float) -> tuple[Effect, ...]:
        """Say `open` to all workers; once, before all events."""
        for worker in self._standing.workers.values():
            worker.heard_at = now
        epochs = self._last_epoch
        self._say_to_all("open", feed=self._feed, train=self._train, epochs=epochs, **self._opening)
        return self._taken_effects()

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """Take one event in, and return what is to be done, in this order."""
        if self._ended is not None:
            return self._answer_after_end(event)
        match event:
            case CloseAsked():
                self._on_close_asked(event.epoch)
            case EndAsked():
                self._end(event.reason)
            case _:
                worker = self._standing.workers[event.worker]
                worker.heard_at = now
                self._on_word(worker, event)
        self._close_further()
        return self._taken_effects()

    # --- events -----------------------------------------------------------------------------------

    def _on_word(self, worker: Worker, event: Word) -> None:
        match event:
            case Opened():
                worker.has_opened = True
                self._end_or_be_ready()
            case Reads():
                self._on_reads(worker, event)
            case Arrived():
                self._on_arrived(worker.name, event)
            case Frozen():
                epoch = self._standing.epochs.get(event.epoch)
                if epoch and epoch.phase is Phase.FREEZING:
                    epoch.rows[worker.name] = event.rows
                    epoch.frozen.add(worker.name)
            case Moved():
                self._on_moved(worker.name, event)
            case Stopped():
                worker.stopped = worker.stopped or event.reason or "it stopped"
                self._end_or_be_ready()
            case Gone():
                worker.is_gone = True
                if worker.stopped is None:
                    self._fail(f"{worker.name} is gone: {event.reason}")

    def _on_reads(self, worker: Worker, event: Reads) -> None:
        if worker.reads == event:
            return
        if worker.reads and (worker.reads.equal or event.equal) and self._is_in_an_epoch:
            self._fail(
                f"{worker.name} reads the feed {self._feed!r} in another way in the middle of an"
                f" epoch: {_way(event)} after {_way(worker.reads)}. Read a whole epoch in one way."
            )
            return
        worker.reads = event
        ways = {one.reads.equal: one for one in self._standing.workers.values() if one.reads}
        if event.equal and (event.batch_size is None or event.batch_size < 1):
            self._fail(
                f"{worker.name} wants equal steps of the feed {self._feed!r} but reads it with"
                f" batch_size={event.batch_size}: equal steps need a batch size of at least 1."
            )
        elif len(ways) > 1:
            self._fail(
                f"the workers disagree about equal steps of the feed {self._feed!r}:"
                f" {ways[True].name} wants them, {ways[False].name} does not."
                " Give all of them the same equal_steps."
            )
        else:
            self._end_or_be_ready()
            self._release(*self._standing.epochs.values())

    def _on_arrived(self, worker: str, event: Arrived) -> None:
        epoch = self._standing.epoch(event.epoch)
        if epoch is None or epoch.phase is Phase.MOVING or worker in epoch.frozen:
            return
        before, epoch.rows[worker] = epoch.rows[worker], event.rows
        # Nothing new for anybody unless this one was short of the next step; there are many events.
        reads = self._standing.workers[worker].reads
        if reads and reads.batch_size and before // reads.batch_size <= epoch.released:
            self._release(epoch)

    def _on_close_asked(self, number: int) -> None:
        epoch = self._standing.epoch(number)
        if epoch is None:
            self._effects.append(self._answers.get(number) or Closed(number, None, {}, 0))
        elif epoch.phase is Phase.OPEN:
            epoch.phase = Phase.CLOSING

    def _on_moved(self, giver: str, event: Moved) -> None:
        epoch = self._standing.epochs.get(event.epoch)
        if epoch is None or giver not in epoch.moves:
            return
        move = epoch.moves[giver].popleft()
        if event.rows != move.rows:
            self._fail(
                f"{giver} could give {move.taker} only {event.rows} of {move.rows} rows of"
                f" epoch {epoch.number} of the feed {self._feed!r}"
            )
            return
        epoch.rows[giver] -= move.rows
        epoch.rows[move.taker] += move.rows
        if epoch.moves[giver]:
            self._say_next_move(epoch, giver)
        else:
            del epoch.moves[giver]

    def _answer_after_end(self, event: Event) -> tuple[Effect, ...]:
        """Calls that come late are answered; workers have been told already."""
        assert self._ended is not None
        match event:
            case CloseAsked(epoch) if epoch in self._answers:
                return (self._answers[epoch],)
            case CloseAsked() | EndAsked():
                return (self._trouble, self._ended) if self._trouble else (self._ended,)
        return ()

    # --- what follows from them -------------------------------------------------------------------

    def _end_or_be_ready(self) -> None:
        stopped = [one for one in self._standing.workers.values() if one.stopped is not None]
        if len(stopped) == len(self._standing.workers) or (stopped and self._standing.is_equal):
            self._end("; ".join(f"{one.name} stopped: {one.stopped}" for one in stopped))
        elif not self._is_ready and self._standing.is_ready:
            self._is_ready = True
            self._effects.append(Ready())

    def _release(self, *epochs: Epoch) -> None:
        """Tell all how many steps they may take as soon as it is one more."""
        if self.is_ended or not (self._standing.is_equal and self._standing.has_every_reader):
            return
        for epoch in epochs:
            steps = common_steps(epoch.rows, self._standing.batch_sizes())
            if steps > epoch.released:
                epoch.released = steps
                self._say_to_all("release", epoch=epoch.number, steps=steps)

    def _close_further(self) -> None:
        """One epoch after the other, as far as answers have come."""
        while not self.is_ended and (epoch := self._standing.next_to_close()):
            if epoch.phase is Phase.CLOSING and self._standing.may_close:
                epoch.phase = Phase.FREEZING
                self._say_to_all("freeze", epoch=epoch.number)
            if epoch.phase is Phase.FREEZING and not self._standing.unfrozen(epoch):
                epoch.phase = Phase.MOVING
                self._share_out(epoch)
            if epoch.phase is not Phase.MOVING or epoch.moves:
                return
            self._close(epoch)

    def _share_out(self, epoch: Epoch) -> None:
        """All rows are counted: give everybody the rows of as many steps as they suffice for."""
        if not self._standing.is_equal:
            return
        batch_sizes = self._standing.batch_sizes()
        steps = most_steps(epoch.rows, batch_sizes)
        shares = {name: steps * size for name, size in batch_sizes.items()}
        for move in plan_moves(epoch.rows, shares):
            epoch.moves.setdefault(move.giver, deque()).append(move)
        for giver in epoch.moves:
            self._say_next_move(epoch, giver)

    def _say_next_move(self, epoch: Epoch, giver: str) -> None:
        """A giver does one at a time; what it answers is about that one."""
        move = epoch.moves[giver][0]
        to = self._standing.workers[move.taker].endpoint.to_json()
        self._say(giver, "move", epoch=epoch.number, to=to, rows=move.rows)

    def _close(self, epoch: Epoch) -> None:
        steps, left_out = None, 0
        if self._standing.is_equal:
            batch_sizes = self._standing.batch_sizes()
            steps = most_steps(epoch.rows, batch_sizes)
            left_out = sum(epoch.rows.values()) - steps * sum(batch_sizes.values())
        for name, rows in epoch.rows.items():
            self._say(name, "closed", epoch=epoch.number, steps=steps, rows=rows)
        answer = Closed(epoch.number, steps, dict(epoch.rows), left_out)
        self._effects.append(answer)
        self._answers[epoch.number] = answer
        while len(self._answers) > ANSWERS_KEPT:
            del self._answers[min(self._answers)]
        self._standing.last_closed = epoch.number
        del self._standing.epochs[epoch.number]
        if epoch.number == self._last_epoch:
            self._end("")

    @property
    def _is_in_an_epoch(self) -> bool:
        """Whether workers were told what depends on how they read."""
        return any(
            epoch.released or epoch.phase not in (Phase.OPEN, Phase.CLOSING)
            for epoch in self._standing.epochs.values()
        )

    # --- effects ----------------------------------------------------------------------------------

    def _say(self, name: str, word: str, **more: Any) -> None:
        if not self._standing.workers[name].is_gone:
            self._effects.append(Say(name, {"say": word, **more}))

    def _say_to_all(self, word: str, **more: Any) -> None:
        for name in self._standing.workers:
            self._say(name, word, **more)

    def _fail(self, text: str) -> None:
        self._trouble = Trouble(text)
        self._effects.append(self._trouble)
        self._end(text)

    def _end(self, reason: str) -> None:
        self._say_to_all("end", reason=reason)
        self._ended = Ended(reason)
        self._effects.append(self._ended)

    def _taken_effects(self) -> tuple[Effect, ...]:
        effects, self._effects = tuple(self._effects), []
        return effects


def _way(reads: Reads) -> str:
    return f"batch_size={reads.batch_size}, equal_steps={reads.equal}"
