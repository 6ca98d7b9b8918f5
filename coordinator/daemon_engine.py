"""The engine of a daemon, which serves many owners one after the other.

What it adds to the engine: it writes the phases of runs to the log, and takes no new runs while it
is shut down.
"""

from __future__ import annotations

import logging

from coordinator.core import effects, events
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import RunId, RunPhase, RunSpec
from coordinator.engine import Engine

_log = logging.getLogger("tflease.coordinator")


class DaemonEngine(Engine):
    """Use inside a running event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._phases: dict[RunId, RunPhase] = {}
        self._is_closing = False

    def refuse_new_runs(self) -> None:
        """From now on; those that there are go on."""
        self._is_closing = True

    def create_run(self, request_id: str, spec: RunSpec) -> RunId:
        """Raises CoordinatorUnavailable when the daemon is being shut down."""
        if self._is_closing:
            raise CoordinatorUnavailable("the coordinator is being shut down")
        run_id = super().create_run(request_id, spec)
        known = self._machine.run_ids()  # it forgets runs that ended long ago
        self._phases = {each: self._phases[each] for each in known}
        return run_id

    def feed(self, event: events.Event) -> tuple[effects.Effect, ...]:
        done = super().feed(event)
        for effect in done:
            if isinstance(effect, effects.RunChanged):
                self._follow(effect.run_id)
        return done

    def _follow(self, run_id: RunId) -> None:
        phase = self._machine.phase(run_id)
        if self._phases.get(run_id) is not phase:
            self._phases[run_id] = phase
            _log.info("run %s: %s", run_id, self._sentence(run_id, phase))

    def _sentence(self, run_id: RunId, phase: RunPhase) -> str:
        """One line, whatever the texts in it are: their authors are users."""
        view = self.view(run_id)
        match phase:
            case RunPhase.FORMING:
                return f"created: {view.spec.name!r}, {len(view.members)} members"
            case RunPhase.RUNNING:
                return f"formed: all {len(view.members)} members are there"
            case RunPhase.STOPPING:
                text = f"stopping: {view.stop_reason}"
            case RunPhase.FAILED if view.failure is not None:
                text = f"failed: {view.failure.summary}"
            case _:
                text = f"{phase.value}: {view.stop_reason}"
        return text.partition("\n")[0]
