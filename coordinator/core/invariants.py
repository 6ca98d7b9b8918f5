"""What must hold of runs between any two events (ARCHITECTURE.md, "Invariants")."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coordinator.core.member import Member
from coordinator.core.model import RunId, RunPhase

_NEVER = float("inf")


def check_run(
    phase: RunPhase,
    members: Collection[Member],
    settled: bool,
    deadline: float,
    silence_deadline: float,
) -> None:
    """Raises AssertionError. ``deadline`` is the run's next one, ``silence_deadline`` that of the
    watch over its members."""
    if phase.is_terminal:
        assert settled
        assert all(member.phase.has_ended for member in members), "live member, ended run"
    else:
        assert phase is RunPhase.RUNNING or deadline < _NEVER, "no deadline"
    for member in members:
        if member.is_watched:
            assert member.incarnation is not None
            assert silence_deadline < _NEVER, f"{member.id} is not watched"


def check_leases(holders: Mapping[str, str], phases: Mapping[RunId, RunPhase]) -> None:
    """Raises AssertionError. ``holders``: the requests of the leases that live, by UUID."""
    for uuid, request_id in holders.items():
        phase = phases.get(RunId(request_id.partition("/")[0]))
        assert phase is None or not phase.is_terminal, f"an ended run holds GPU {uuid}"
