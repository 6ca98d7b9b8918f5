"""What a task attempt that claims a slot is answered: the slot, or to stand by (R3, R4).

A slot has one holder. Another attempt of the same slot stands by as long as the holder may be
there, also while the run is stopping: the attempt that returns first wins in Spark, which then
kills the other.
"""

from __future__ import annotations

from coordinator.core import roster
from coordinator.core.effects import Granted, StandBy
from coordinator.core.errors import RunOver, StaleIncarnation
from coordinator.core.events import ReservationRequested
from coordinator.core.member import Member
from coordinator.core.model import LAST_GENERATION, MemberPhase, RunPhase, RunSpec

STAND_BY_DELAY = 2.0
"""Seconds after which an attempt that stands by asks again."""

SOON = 0.25
"""The same while a gang restarts: the slot will be free in a moment."""

_ASKED_PER_SECOND = 400
"""So many claims of a large gang, which may have to wait for minutes, leave time for the rest."""

_OPEN = (RunPhase.FORMING, RunPhase.RUNNING, RunPhase.RESTARTING)
_VACANT = (MemberPhase.EXPECTED, MemberPhase.FENCED)


def answer(
    phase: RunPhase,
    spec: RunSpec,
    member: Member,
    claim: ReservationRequested,
    *,
    is_avoided: bool = False,
) -> Granted | StandBy:
    """``Granted`` to an incarnation that is not the holder yet: the caller makes it the holder.
    ``is_avoided``: others had better come first.

    Raises RunOver, ExecutorUnfit, StaleIncarnation.
    """
    is_holder = member.incarnation == claim.incarnation and member.is_watched
    is_held = member.phase.is_live and not is_holder
    if phase not in _OPEN and not is_held:
        raise RunOver(f"run {claim.run_id} is {phase.value}: nothing to join")
    granted = Granted(claim.run_id, member.id, claim.incarnation)
    if is_holder:
        return granted
    if not is_held:  # else its refusal would be the first row, and the end of the holder
        roster.check_fitness(spec, claim.executor)
    if member.has_been_held_by(claim.incarnation):  # its process is gone: never a re-grant
        raise StaleIncarnation(f"{claim.incarnation} held {claim.member} and is over")
    if is_avoided:
        return stand_by(claim, f"{claim.executor.hostname} has failed repeatedly: others first")
    if phase is RunPhase.FORMING and member.phase in _VACANT:
        return granted
    if phase is RunPhase.RUNNING and member.phase is MemberPhase.EXPECTED:
        return granted  # it starts again alone
    if phase is RunPhase.RESTARTING:
        return stand_by(claim, LAST_GENERATION, max(SOON, spec.roles.total / _ASKED_PER_SECOND))
    return stand_by(claim, f"{member.incarnation} on {member.executor}, {member.phase.value}")


def stand_by(claim: ReservationRequested, holder: str, delay: float = STAND_BY_DELAY) -> StandBy:
    """Ask again in ``delay`` seconds."""
    return StandBy(claim.run_id, claim.member, claim.incarnation, holder, delay)
