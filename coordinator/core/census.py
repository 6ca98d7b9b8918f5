"""How many runs, members and GPUs there are in each phase. Counts without making views, so that it
may be asked every second also of ten thousand members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.core.gpu import LeaseState
from coordinator.core.machine import Machine
from coordinator.core.model import MemberPhase, RunPhase


@dataclass(frozen=True, slots=True)
class Census:
    """``members``: of runs that have not ended."""

    runs: Mapping[RunPhase, int]
    members: Mapping[MemberPhase, int]
    gpus: Mapping[LeaseState, int]


def take(machine: Machine) -> Census:
    """As it is now."""
    runs = [machine._runs[run_id] for run_id in machine.run_ids()]
    members: Counter[MemberPhase] = Counter()
    for run in runs:
        if not run.phase.is_terminal:
            members.update(member.phase for member in run._members.values())
    gpus = Counter(entry.state for entry in machine.book._entries.values())
    return Census(Counter(run.phase for run in runs), members, gpus)
