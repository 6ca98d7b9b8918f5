"""The one door: ``handle(event, now) -> effects``, ``next_deadline()``, ``check_invariants()``.

Synchronous and deterministic: the caller brings the time, the ids and the I/O. An event that is
refused raises a ``TfleaseError`` and changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.core import diagnosis, events
from coordinator.core.effects import Effect, RunChanged
from coordinator.core.errors import InvalidRun, UnknownRun
from coordinator.core.model import RunId, RunPhase, RunView
from coordinator.core.run import Run

KEPT_RUNS = 100
"""So many runs that have ended are remembered; with each new run older ones are forgotten."""


class Machine:
    """All runs of one coordinator."""

    def __init__(self) -> None:
        self._runs: dict[RunId, Run] = {}

    def handle(self, event: events.Event, now: float) -> tuple[Effect, ...]:
        """Applies one event at the instant ``now`` (seconds, never going back).

        Raises UnknownRun, RunOver, InvalidReservation, ExecutorUnfit, StaleIncarnation,
        InvalidRun.
        """
        match event:
            case events.RunCreated(run_id=run_id, spec=spec):
                if run_id in self._runs:
                    raise InvalidRun(f"run {run_id} exists already")
                self._forget_old()
                self._runs[run_id] = Run(run_id, spec, now)
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
                return ()
            case events.TimePassed():
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
        return min((run.next_deadline() for run in self._runs.values()), default=float("inf"))

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
        for run in self._runs.values():
            run.check_invariants()
