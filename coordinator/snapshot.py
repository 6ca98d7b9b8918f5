"""How a coordinator stands: numbers, taken in its event loop for those who may not look into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.core.census import Census

if TYPE_CHECKING:
    from coordinator.engine import Engine
    from coordinator.limiting import Limiter


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``not_ready``: why it takes no work; empty when it does."""

    census: Census
    gpu_waits: int
    events: Mapping[str, int]
    refused: Mapping[str, int]
    slowed: Mapping[str, int]
    journal_path: Path | None
    backlog: int
    journal_problem: str
    not_ready: str


def take(engine: Engine, limiter: Limiter, not_ready: str) -> Snapshot:
    """As it is now; in the event loop."""
    return Snapshot(
        census=engine.census(),
        gpu_waits=len(engine.gpus.waiting),
        events=dict(engine.events.counts),
        refused=dict(limiter.refused),
        slowed=dict(limiter.slowed),
        journal_path=getattr(engine.journal, "path", None),
        backlog=engine.backlog,
        journal_problem=engine.journal_problem,
        not_ready=not_ready,
    )
