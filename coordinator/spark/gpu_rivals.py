"""Who has the GPUs that Spark does not give to a member's task (G5).

Where Spark manages GPUs, a task that finds none free is not started, and no agent is there that
could look. What can be said then is which other runs of this driver have some.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from coordinator.core.model import MemberId, Role, RunId, RunView

_NAMED = 5
"""So many members of a run are named."""

_lock = threading.Lock()
_runs: dict[str, dict[RunId, tuple[RunView, Mapping[Role, float]]]] = {}
"""Those for whose tasks Spark sets GPUs aside, by application; with how many for each role."""


class Rivals:
    """The other runs of an application. ``taken``: GPUs that Spark sets aside for a task of each
    role of this run; empty where it manages none. Thread-safe."""

    def __init__(self, application_id: str, taken: Mapping[Role, float]) -> None:
        self._application_id = application_id
        self._taken = taken

    def saw(self, run: RunView) -> None:
        """How this run stands; it is forgotten with its end."""
        if not any(self._taken.values()):
            return
        with _lock:
            runs = _runs.setdefault(self._application_id, {})
            if run.phase.is_terminal:
                runs.pop(run.run_id, None)
            else:
                runs[run.run_id] = (run, self._taken)
            if not runs:
                del _runs[self._application_id]

    def forget(self, run_id: RunId) -> None:
        """Nobody tells of this run any more."""
        with _lock:
            _runs.get(self._application_id, {}).pop(run_id, None)

    def explain(self, run_id: RunId, member: MemberId) -> str:
        """Why a member's task may not have been started; "" when it waits for no GPU, or nothing
        is known."""
        if not self._taken.get(member.role):
            return ""
        with _lock:
            runs = list(_runs.get(self._application_id, {}).values())
        others = [_holder(run, taken) for run, taken in runs if run.run_id != run_id]
        holders = "; ".join(filter(None, others))
        return f"Spark assigns GPUs, and of this application {holders}" if holders else ""


def _holder(run: RunView, taken: Mapping[Role, float]) -> str:
    """Members whose task runs: Spark's books do not know whether they use what it set aside."""
    live = [str(each.id) for each in run.members if each.phase.is_live and taken[each.id.role]]
    more = f" and {len(live) - _NAMED} more" if len(live) > _NAMED else ""
    names = ", ".join(live[:_NAMED])
    return f"run {run.run_id} ({run.spec.name}) has some for {names}{more}" if live else ""
