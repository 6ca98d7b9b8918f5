"""Owns the machine: feeds it events and time, and carries out its effects.

One engine, one event loop, one thread. Knows nothing of gRPC or protobuf: sessions and watchers
are handed to it as objects. It detects that it was itself paused (SIGSTOP, a suspended laptop, a
swapping host), because then nobody's silence means anything.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from coordinator.chronicle import Chronicle
from coordinator.core import census, effects, events
from coordinator.core.errors import StaleIncarnation
from coordinator.core.log_values import ReadLog
from coordinator.core.machine import Machine
from coordinator.core.model import IncarnationId, MemberId, MemberView, RunId, RunSpec, RunView
from coordinator.durability import Commits, recover
from coordinator.event_log import EventLog
from coordinator.gpu_requests import GpuRequests
from coordinator.log_requests import LogRequests
from coordinator.measured_journal import MeasuredJournal
from coordinator.tallies import Tallies

if TYPE_CHECKING:
    from coordinator.core.durable import Changes
    from coordinator.journal import Journal

_log = logging.getLogger("tflease.coordinator")

TICK_INTERVAL = 1.0
"""Seconds between two looks at the clock when nothing is due."""

PAUSE_THRESHOLD = 3.0
"""Seconds of lateness of a tick from which on the coordinator calls itself paused: less than a
quarter of the default liveness time (ARCHITECTURE.md, "The driving loop")."""

WATCH_INTERVAL = 0.1
"""Seconds at least between two pictures sent to one watcher; the latest wins."""


class Session(Protocol):
    """A member's open stream."""

    def send(self, command: effects.Command | ReadLog) -> None:
        """Queues a command; never blocks."""

    def close(self) -> None:
        """Ends the stream: another session of the same incarnation took over."""


class Engine:
    """The shell around one machine. Use inside a running event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        journal: Journal | None = None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        """``give_up``: see ``Commits``."""
        self._machine = self._begin(journal, clock, wall)
        self.tallies = Tallies()
        self._journal = journal
        self._commits: Commits | None = None
        self.events = EventLog(wall, 1 if journal is None else journal.next_event_id)
        if journal is not None:
            self.events.is_journaled = True
            self._commits = Commits(
                MeasuredJournal(journal, self.tallies),
                self._take_changes,
                self.events.take_new,
                give_up,
            )
        self._clock = clock
        self._wall = wall
        self.chronicle = Chronicle(self.events, self._machine, self.view)
        self.logs = LogRequests()
        self.gpus = GpuRequests(self._machine.book, clock, self._apply_to_book)
        self._sessions: dict[tuple[RunId, IncarnationId], Session] = {}
        self._watchers: dict[RunId, set[asyncio.Event]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = clock()
        self._closed = False

    @staticmethod
    def _begin(
        journal: Journal | None, clock: Callable[[], float], wall: Callable[[], float]
    ) -> Machine:
        """A new machine, or the one of before the restart."""
        if journal is None:
            # Milliseconds: a coordinator grants fewer GPUs than that.
            return Machine(secrets.token_hex(4), last_number=int(wall() * 1000))
        records = recover(journal)
        now = clock()  # after the reading: nobody's time runs during that
        return Machine.restore(journal.coordinator_id, records, now, wall() - now)

    # -- what is on disk -------------------------------------------------------------------

    @property
    def journal(self) -> Journal | None:
        """Where decisions are kept; None: in memory alone."""
        return self._journal

    @property
    def journal_problem(self) -> str:
        """Why nothing can be written now; empty when it can."""
        return "" if self._commits is None else self._commits.problem

    @property
    def backlog(self) -> int:
        """So many changes are not on disk yet."""
        return 0 if self._commits is None else self._commits.backlog

    @property
    def mark(self) -> int:
        """Stands for all that has been decided up to now."""
        return 0 if self._commits is None else self._commits.mark

    def is_durable(self, mark: int) -> bool:
        """Whether what had been decided up to ``mark`` is on disk."""
        return self._commits is None or self._commits.is_done(mark)

    async def durable(self, mark: int | None = None) -> None:
        """Returns when what had been decided up to ``mark`` is on disk; None: up to now. At once
        without a journal."""
        if self._commits is not None:
            await self._commits.durable(mark)

    def _take_changes(self) -> Changes:
        return self._machine.take_changes(self.wall_offset)

    async def flush(self, patience: float) -> bool:
        """Waits for what is still to be written. False: it could not be in so many seconds."""
        return self._commits is None or await self._commits.end(patience)

    def _commit(self) -> None:
        if self._commits is not None and (self._machine.has_changes or self.events.has_new):
            self._commits.changed()

    def tell(self, kind: str, text: str) -> None:
        """An event that is no decision of the machine."""
        self.chronicle.tell(kind, text)
        self._commit()

    # -- events in -------------------------------------------------------------------------

    def feed(self, event: events.Event) -> tuple[effects.Effect, ...]:
        """Applies one event now. Raises what ``Machine.handle`` raises."""
        self._notice_pause()
        is_beat = isinstance(event, events.Heard)
        try:
            done = self._machine.handle(event, self._clock())
            for effect in done:
                self._carry_out(effect)
            if is_beat:
                self.tallies.beats += 1
            if done or not is_beat:
                self.chronicle.observe(event, done)
        finally:  # what was decided is to be written, whatever went wrong after that
            self._commit()
        if not is_beat:  # a beat only moves deadlines later
            self._arm()
        return done

    def create_run(self, request_id: str, spec: RunSpec) -> RunId:
        """Idempotent by ``request_id``."""
        created = self._machine.run_of_request(request_id) if request_id else None
        if created is not None:
            return created
        run_id = RunId(secrets.token_hex(6))
        self.feed(events.RunCreated(run_id, spec, request_id))
        return run_id

    def knows_request(self, request_id: str) -> bool:
        """Whether a run was created by this request."""
        return self._machine.run_of_request(request_id) is not None

    def open_session(
        self, run_id: RunId, member: MemberId, incarnation: IncarnationId, session: Session
    ) -> None:
        """A member attends. A second session ends the first. Raises StaleIncarnation."""
        key = (run_id, incarnation)
        before = self._sessions.get(key)
        self._sessions[key] = session
        try:
            self.feed(events.SessionOpened(run_id, member, incarnation))
        except Exception:
            self._sessions.pop(key)
            if before is not None:
                self._sessions[key] = before
            raise
        if before is not None:
            before.close()

    def close_session(
        self, run_id: RunId, member: MemberId, incarnation: IncarnationId, session: Session
    ) -> None:
        """A member's stream ended, for whatever reason."""
        if self._sessions.get((run_id, incarnation)) is session:
            del self._sessions[(run_id, incarnation)]
            with suppress(StaleIncarnation):  # another attempt holds the slot by now
                self.feed(events.SessionClosed(run_id, member, incarnation))

    def _apply_to_book(self, use: Callable[[], object]) -> None:
        """The book of GPUs was used by somebody else than a run: runs may wait for it, too."""
        self._notice_pause()
        try:
            use()
        finally:
            try:
                done = self._machine.settle_gpus(self._clock())
                for effect in done:
                    self._carry_out(effect)
                self.chronicle.observe(None, done)
            finally:
                self._commit()
                self._arm()

    # -- views out -------------------------------------------------------------------------

    @property
    def wall_offset(self) -> float:
        """What to add to the machine's instants to have Unix time."""
        return self._wall() - self._clock()

    def view(self, run_id: RunId) -> RunView:
        """Raises UnknownRun."""
        return self._machine.view(run_id, self._clock())

    def member_view(self, run_id: RunId, member: MemberId) -> MemberView:
        """One member, without the price of a view of all. Raises UnknownRun, InvalidReservation."""
        return self._machine.member_view(run_id, member, self._clock())

    def spec(self, run_id: RunId) -> RunSpec:
        """What a run is: fixed, and without the price of a view. Raises UnknownRun."""
        return self._machine.spec(run_id)

    def views(self) -> list[RunView]:
        """All runs, newest last."""
        return [self.view(run_id) for run_id in self._machine.run_ids()]

    def run_ids(self) -> tuple[RunId, ...]:
        """All runs, newest last."""
        return self._machine.run_ids()

    async def watch(self, run_id: RunId) -> AsyncGenerator[RunView, None]:
        """The run now and after changes, until it has ended. Raises UnknownRun."""
        self.view(run_id)
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(run_id, set())
        watchers.add(changed)
        try:
            while True:
                changed.clear()
                view = self.view(run_id)
                yield view
                if view.phase.is_terminal:
                    return
                await asyncio.sleep(WATCH_INTERVAL)
                await changed.wait()
        finally:
            watchers.discard(changed)
            if not watchers and self._watchers.get(run_id) is watchers:
                del self._watchers[run_id]

    def session(self, run_id: RunId, incarnation: IncarnationId | None) -> Session | None:
        """The open stream of an incarnation; None when it has none."""
        return None if incarnation is None else self._sessions.get((run_id, incarnation))

    def census(self) -> census.Census:
        """How many there are of what."""
        return census.take(self._machine)

    def has_watchers(self, run_id: RunId) -> bool:
        """Whether anybody follows the run."""
        return bool(self._watchers.get(run_id))

    def check_invariants(self) -> None:
        """What must hold between events. Raises AssertionError."""
        self._machine.check_invariants()

    async def all_ended(self) -> None:
        """Returns when no run is alive."""
        for run_id in self._machine.run_ids():
            async for _ in self.watch(run_id):
                pass

    # -- effects and time ------------------------------------------------------------------

    def _carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case (
                effects.SendStart()
                | effects.SendStop()
                | effects.DumpStack()
                | effects.InspectGpus()
                | effects.ClaimGpus()
            ):
                session = self._sessions.get((effect.run_id, effect.incarnation))
                if session is not None:  # otherwise it is told when it attends again
                    session.send(effect)
            case effects.RunChanged(run_id=run_id):
                for changed in self._watchers.get(run_id, ()):
                    changed.set()
            case effects.Noted(run_id=None, text=text):
                self.gpus.note(self._wall(), text)
            case effects.GpusGranted(request_id=request_id):
                self.gpus.granted(request_id)
            case effects.GpusRefused(request_id=request_id, why=why):
                self.gpus.refused(request_id, why)
            case effects.Granted() | effects.StandBy():
                pass  # answers: the caller of ``feed`` has them
            case effects.Restarted(restart=restart):
                self.tallies.restarts[restart.cause.value] += 1
            case effects.Noted() | effects.GpuLeased() | effects.GpuFreed():
                pass  # the chronicle's
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def start(self) -> None:
        """Starts the clock."""
        self.chronicle.begin(has_past=self._journal is not None and self.events.newest_id > 0)
        self._commit()
        self._arm()

    def close(self) -> None:
        """Stops the clock."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, *, anew: bool = False) -> None:
        if self._closed:
            return
        now = self._clock()
        delay = min(max(self._machine.next_deadline() - now, 0.0), TICK_INTERVAL)
        if self._timer is not None:
            if now < self._due_at <= now + delay and not anew:
                return  # it comes soon enough, and arms itself again: most events end here
            self._timer.cancel()
        self._due_at = now + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        try:
            self.feed(events.TimePassed())
        except Exception:
            _log.exception("time could not pass by a bug of the coordinator; trying again")
            self._timer = asyncio.get_running_loop().call_later(TICK_INTERVAL, self._tick)
        else:
            self._arm(anew=True)  # this one has fired, and maybe a moment before its time

    def _notice_pause(self) -> None:
        """Before any event: after a pause the first may well be another than the clock's, and
        must neither hide the pause nor be taken for a beat that came in time."""
        now = self._clock()
        late = now - self._due_at
        if self._timer is not None and late > PAUSE_THRESHOLD:
            self._due_at = now
            paused = events.CoordinatorPaused(late)
            done = self._machine.handle(paused, now)
            for effect in done:
                self._carry_out(effect)
            self.chronicle.observe(paused, done)
