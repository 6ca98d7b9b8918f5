"""The one door: ``handle(event, now) -> effects``, ``next_deadline()``, ``check_invariants()``.

Synchronous and deterministic: the caller brings the time, the ids and the I/O. An event that is
refused raises a ``TfleaseError`` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coordinator.core import diagnosis, events, invariants
from coordinator.core.effects import Effect, GpusGranted, GpusRefused, Noted, RunChanged
from coordinator.core.errors import InvalidRun, UnknownRun
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_news import Acquired, BookEffect, Expired, Lapsed, Told
from coordinator.core.model import RunId, RunPhase, RunView
from coordinator.core.run import Run

KEPT_RUNS = 100
"""So many runs that have ended are remembered; with each new run older ones are forgotten."""


class Machine:
    """All runs of one coordinator, and the book of GPUs that they share. ``coordinator_id``: never
    used by another one, not even by the one before a restart. ``last_number``: above all that the
    one before has used, so that an answer to its last inspection is none to our first."""

    def __init__(self, coordinator_id: str, last_number: int = 0) -> None:
        self._runs: dict[RunId, Run] = {}
        self.book = LeaseBook(coordinator_id, last_number)

    def handle(self, event: events.Event, now: float) -> tuple[Effect, ...]:
        """Applies one event at the instant ``now`` (seconds, never going back).

        Raises UnknownRun, RunOver, InvalidReservation, ExecutorUnfit, StaleIncarnation,
        InvalidRun, LeaseLost.
        """
        return (*self._handle(event, now), *self.settle_gpus(now))

    def settle_gpus(self, now: float) -> tuple[Effect, ...]:
        """What follows from a change of the book; to be called after it was used directly."""
        effects: list[Effect] = []
        while news := self.book.take_effects():
            effects += [each for item in news for each in _from_book(item, self._runs)]
            for run in self._runs.values():
                effects += run.form_if_ready(now)
        return tuple(effects)

    def _handle(self, event: events.Event, now: float) -> tuple[Effect, ...]:
        match event:
            case events.RunCreated(run_id=run_id, spec=spec):
                if run_id in self._runs:
                    raise InvalidRun(f"run {run_id} exists already")
                self._forget_old()
                self._runs[run_id] = Run(run_id, spec, self.book, now)
                return (RunChanged(run_id),)
            case events.StopRequested(run_id=run_id, reason=reason, grace=grace):
                return tuple(self._run(run_id).stop(reason, grace, now))
            case events.OwnerLost(run_id=run_id, reason=reason):
                return tuple(self._run(run_id).stop(reason, None, now))
            case events.OwnerCame(run_id=run_id) | events.OwnerLeft(run_id=run_id):
                return tuple(self._run(run_id).own(event, now))
            case events.SchedulingReported(run_id=run_id):
                return tuple(self._run(run_id).report_scheduling(event, now))
            case events.TaskReturned(run_id=run_id):
                return tuple(self._run(run_id).task_returned(event, now))
            case events.ReservationRequested(run_id=run_id):
                return tuple(self._run(run_id).reserve(event, now))
            case events.CoordinatorPaused(seconds=seconds):
                for run in self._runs.values():
                    run.extend(seconds)
                self.book.extend(seconds)
                return ()
            case events.TimePassed():
                self.book.pass_time(now)
                return tuple(effect for run in self._due(now) for effect in run.pass_time(now))
            case _:
                return tuple(self._run(event.run_id).attend(event, now))

    def _forget_old(self) -> None:
        ended = [run for run in self._runs.values() if run.phase.is_terminal]
        ended.sort(key=lambda run: run.ended_at)  # whoever waits for the latest must still see them
        for run in ended[: max(0, len(ended) - KEPT_RUNS)]:
            del self._runs[run.run_id]

    def _due(self, now: float) -> list[Run]:
        return [run for run in self._runs.values() if run.next_deadline() <= now]

    def _run(self, run_id: RunId) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            raise UnknownRun(f"this coordinator knows no run {run_id}", {"run_id": run_id})
        return run

    def next_deadline(self) -> float:
        """The instant at which ``TimePassed`` is due at the latest; infinity when never. It may
        be earlier than needed, never later."""
        deadlines = (run.next_deadline() for run in self._runs.values())
        return min(*deadlines, self.book.next_deadline(), float("inf"))

    def phase(self, run_id: RunId) -> RunPhase:
        """Where a run stands, without the price of a view. Raises UnknownRun."""
        return self._run(run_id).phase

    def view(self, run_id: RunId, now: float) -> RunView:
        """A frozen picture of a run, with the diagnosis. Raises UnknownRun."""
        view = self._run(run_id).view(now)
        return replace(view, diagnosis=diagnosis.explain(view, now))

    def run_ids(self) -> tuple[RunId, ...]:
        """All runs, newest last."""
        return tuple(self._runs)

    def check_invariants(self) -> None:
        """What must hold between events (ARCHITECTURE.md, "Invariants"). Raises AssertionError."""
        self.book.check_invariants()
        invariants.check_leases(
            self.book.holders(), {run_id: run.phase for run_id, run in self._runs.items()}
        )
        for run in self._runs.values():
            run.check_invariants()


def _from_book(news: BookEffect, runs: Mapping[RunId, Run]) -> list[Effect]:
    """Requests of runs are answered by the runs themselves, which ask again."""
    match news:
        case Told(text=text):
            return [Noted(None, text)]
        case Acquired(request_id=request_id) if _run_of(request_id) not in runs:
            return [GpusGranted(request_id)]
        case Expired(request_id=request_id, why=why):
            return [GpusRefused(request_id, why)]
        case Lapsed(request_id=request_id, who=who, uuid=uuid):
            # A run's member has a shorter clock of its own; the next renewal is refused to both.
            run_id = _run_of(request_id)
            text = f"{who} has not renewed its lease of GPU {uuid} in time"
            return [Noted(run_id if run_id in runs else None, text)]
        case _:
            return []


def _run_of(request_id: str) -> RunId:
    return RunId(request_id.partition("/")[0])
