"""The engine of a daemon, which serves many owners one after the other.

What it adds to the engine: it takes no new runs while it is shut down.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator import event_kinds
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import RunId, RunSpec
from coordinator.engine import Engine
from coordinator.journal import Journal


class DaemonEngine(Engine):
    """Use inside a running event loop."""

    def __init__(
        self, journal: Journal | None = None, give_up: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(journal=journal, give_up=give_up)
        self._is_closing = False

    @property
    def is_closing(self) -> bool:
        """Whether it was told to end, and takes no new runs."""
        return self._is_closing

    def refuse_new_runs(self, reason: str = "") -> None:
        """From now on; those that there are go on."""
        self._is_closing = True
        text = f"is told to end: {reason}" if reason else "is told to end"
        self.tell(event_kinds.COORDINATOR_STOPPING, text)

    def create_run(self, request_id: str, spec: RunSpec) -> RunId:
        """Raises CoordinatorUnavailable when the daemon is being shut down."""
        if self._is_closing:
            raise CoordinatorUnavailable("the coordinator is being shut down")
        return super().create_run(request_id, spec)
