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
from typing import Protocol

from coordinator.core import effects, events
from coordinator.core.errors import StaleIncarnation
from coordinator.core.machine import Machine
from coordinator.core.model import IncarnationId, MemberId, ReadLog, RunId, RunSpec, RunView
from coordinator.gpu_requests import GpuRequests
from coordinator.log_requests import LogRequests

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
    ) -> None:
        # Milliseconds: a coordinator grants fewer GPUs than that.
        self._machine = Machine(secrets.token_hex(4), last_number=int(wall() * 1000))
        self._clock = clock
        self._wall = wall
        self.logs = LogRequests()
        self.gpus = GpuRequests(self._machine.book, clock, self._apply_to_book)
        self._sessions: dict[tuple[RunId, IncarnationId], Session] = {}
        self._watchers: dict[RunId, set[asyncio.Event]] = {}
        self._requests: dict[str, RunId] = {}
        self._specs: dict[RunId, RunSpec] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = clock()
        self._closed = False

    # -- events in -------------------------------------------------------------------------

    def feed(self, event: events.Event) -> tuple[effects.Effect, ...]:
        """Applies one event now. Raises what ``Machine.handle`` raises."""
        self._notice_pause()
        done = self._machine.handle(event, self._clock())
        for effect in done:
            self._carry_out(effect)
        if not isinstance(event, events.Heard):  # a beat only moves deadlines later
            self._arm()
        return done

    def create_run(self, request_id: str, spec: RunSpec) -> RunId:
        """Idempotent by ``request_id``."""
        if request_id and request_id in self._requests:
            return self._requests[request_id]
        run_id = RunId(secrets.token_hex(6))
        self.feed(events.RunCreated(run_id, spec))
        self._forget_what_the_machine_forgot()
        if request_id:
            self._requests[request_id] = run_id
        return run_id

    def _forget_what_the_machine_forgot(self) -> None:
        known = set(self._machine.run_ids())
        self._requests = {asked: run for asked, run in self._requests.items() if run in known}
        self._specs = {run: spec for run, spec in self._specs.items() if run in known}

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
            for effect in self._machine.settle_gpus(self._clock()):
                self._carry_out(effect)
            self._arm()

    # -- views out -------------------------------------------------------------------------

    @property
    def wall_offset(self) -> float:
        """What to add to the machine's instants to have Unix time."""
        return self._wall() - self._clock()

    def view(self, run_id: RunId) -> RunView:
        """Raises UnknownRun."""
        return self._machine.view(run_id, self._clock())

    def spec(self, run_id: RunId) -> RunSpec:
        """What a run is: fixed, and without the price of a view. Raises UnknownRun."""
        if run_id not in self._specs:
            self._specs[run_id] = self.view(run_id).spec
        return self._specs[run_id]

    def views(self) -> list[RunView]:
        """All runs, newest last."""
        return [self.view(run_id) for run_id in self._machine.run_ids()]

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
                _log.info("%s", text)
                self.gpus.note(self._wall(), text)
            case effects.Noted(run_id=run_id, text=text):
                _log.info("run %s: %s", run_id, text)
            case effects.GpusGranted(request_id=request_id):
                self.gpus.granted(request_id)
            case effects.GpusRefused(request_id=request_id, why=why):
                self.gpus.refused(request_id, why)
            case effects.Granted() | effects.StandBy():
                pass  # answers: the caller of ``feed`` has them
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def start(self) -> None:
        """Starts the clock."""
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
            _log.warning("the coordinator did not run for %.1f s: all clocks extended", late)
            self._due_at = now
            for effect in self._machine.handle(events.CoordinatorPaused(late), now):
                self._carry_out(effect)
