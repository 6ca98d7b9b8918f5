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
from coordinator.core.model import MemberPhase, RunPhase, RunSpec

STAND_BY_DELAY = 2.0
"""Seconds after which an attempt that stands by asks again."""

_VACANT = (MemberPhase.EXPECTED, MemberPhase.FENCED)


def answer(
    phase: RunPhase, spec: RunSpec, member: Member, claim: ReservationRequested
) -> Granted | StandBy:
    """``Granted`` to an incarnation that is not the holder yet: the caller makes it the holder.

    Raises RunOver, ExecutorUnfit, StaleIncarnation.
    """
    is_holder = member.incarnation == claim.incarnation and member.is_watched
    is_held = member.phase.is_live and not is_holder
    if phase not in (RunPhase.FORMING, RunPhase.RUNNING) and not is_held:
        raise RunOver(f"run {claim.run_id} is {phase.value}: nothing to join")
    granted = Granted(claim.run_id, member.id, claim.incarnation)
    if is_holder:
        return granted
    if not is_held:  # else its refusal would be the first row, and the end of the holder
        roster.check_fitness(spec, claim.executor)
    if member.has_been_held_by(claim.incarnation):  # its process is gone: never a re-grant
        raise StaleIncarnation(f"{claim.incarnation} held {claim.member} and is over")
    if phase is RunPhase.FORMING and member.phase in _VACANT:
        return granted
    holder = f"{member.incarnation} on {member.executor}, {member.phase.value}"
    return StandBy(claim.run_id, member.id, claim.incarnation, holder, STAND_BY_DELAY)
