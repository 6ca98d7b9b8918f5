"""Alive but stuck (E5): who has made no progress for too long, and whom of several to blame.

In a synchronous step one member that hangs holds up all others, so all of them are late together;
their stacks tell who waits for whom.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from coordinator.core.member import Member
from coordinator.core.model import Cause, ExitReport, Failure, MemberId, MemberPhase, Role, RunSpec
from coordinator.core.stall_timeouts import StallTimeouts

ANSWER_TIMEOUT = 5.0
"""Seconds for the agents to bring the stacks of their processes."""

MAX_ASKED = 64
"""Members that are asked for their stacks, those that are late first."""

_NEVER = float("inf")
_INNERMOST = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')
_WAITING = ("/tensorflow/", "/keras/", "/tf_keras/", "/executor_agent/")
"""Where somebody stands who waits for others: for TensorFlow's collectives and remote calls, or for
us."""
_MEANS = ("/threading.py", "/queue.py")
"""How anybody waits; who called that tells for whom."""


def deadline(member: Member, timeouts: StallTimeouts) -> float:
    """When a member is late; infinity when it cannot be."""
    if member.phase is not MemberPhase.RUNNING:
        return _NEVER
    timeout = timeouts.of(member.section)
    return _NEVER if timeout is None else member.progress_at + timeout


class StallWatch:
    """Finds late members without looking at all of them with every report. ``next_at`` is a lower
    bound: reports mostly move deadlines later, so it is recomputed when it comes."""

    __slots__ = ("_members", "_timeouts", "next_at")

    def __init__(self, members: Iterable[Member], spec: RunSpec) -> None:
        self._members = tuple(members)
        self._timeouts = spec.stall
        self.next_at = _NEVER

    def expect(self, member: Member) -> None:
        """A member's deadline may be earlier than all others now."""
        self.next_at = min(self.next_at, deadline(member, self._timeouts))

    def due(self, now: float) -> list[Member]:
        """Late members, those without progress for longest first."""
        if now < self.next_at:
            return []
        late = [each for each in self._members if deadline(each, self._timeouts) <= now]
        self.rearm()
        return sorted(late, key=lambda member: member.progress_at)

    def begin(self, now: float) -> None:
        """All are there, some of them again: nobody was late until now."""
        for member in self._members:
            member.progress_at = now
        self.rearm()

    def rearm(self) -> None:
        """Recomputes ``next_at``."""
        self.next_at = min((deadline(each, self._timeouts) for each in self._members), default=0.0)

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away: nobody was late for that long."""
        for member in self._members:
            member.progress_at += seconds
        self.rearm()


def to_ask(members: Iterable[Member], late: Collection[MemberId]) -> list[Member]:
    """Whose stacks are wanted: the late ones first, of them those that are behind, and all others
    that run."""
    running = [each for each in members if each.phase is MemberPhase.RUNNING]
    return sorted(running, key=lambda each: (each.id not in late, each.step))[:MAX_ASKED]


def failure(members: Sequence[Member], timeouts: StallTimeouts, now: float) -> Failure:
    """Whom to blame, and where everybody stands. ``members``: those that were asked; one of them
    is late."""
    late = {each.id for each in members if _stands_still(each, timeouts, now)}
    goes_on = {each.id for each in members if deadline(each, timeouts) < _NEVER} - late
    suspects = [each for each in members if each.id not in goes_on]
    culprit = min(_concerned(suspects, late), key=lambda each: _rank(each, late, suspects))
    seconds = now - min(each.progress_at for each in members if each.id in late)
    where = f" on {culprit.executor}" if culprit.executor is not None else ""
    place = _place(culprit.stack)
    summary = (
        f"{culprit.id}{where} is stuck: no progress for {seconds:.0f} s in {_doing(culprit)}"
        f"{f'; it stands in {place}' if place else ', and its stack could not be had'}"
    )
    report = ExitReport(Cause.STALLED, message=summary, traceback=culprit.stack)
    others = [_stand(each, late) for each in members if each is not culprit]
    return Failure(Cause.STALLED, summary, culprit.id, report, tuple(others))


def _stands_still(member: Member, timeouts: StallTimeouts, now: float) -> bool:
    """Without progress for half of its time. All whom one holds up made their last step with it,
    but not in the same instant: whose time is over first says nothing."""
    timeout = timeouts.of(member.section)
    return timeout is not None and now >= member.progress_at + timeout / 2


def _concerned(suspects: Sequence[Member], late: Collection[MemberId]) -> list[Member]:
    """With one late member it is that one, if it does not wait for others."""
    first = next(each for each in suspects if each.id in late)
    if len(late) == 1 and not (_trains(first) and _is_waiting(first)):
        return [first]
    return list(suspects)


def _rank(
    member: Member, late: Collection[MemberId], members: Sequence[Member]
) -> tuple[bool, int, bool, bool, float]:
    """The smallest is to blame. Of several who train, the one that is behind; at the same step, the
    one whose own code runs."""
    # Who reports nothing is at no step: it is told apart by where it stands.
    step = member.step or max(each.step for each in members)
    is_late = member.id in late
    return (not _trains(member), step, _is_waiting(member), not is_late, member.progress_at)


def _trains(member: Member) -> bool:
    return member.id.role in (Role.CHIEF, Role.WORKER)


def _is_waiting(member: Member) -> bool:
    """Also who brought no stack: it has shown nothing."""
    return not member.stack or is_waiting_for_others(member.stack)


def is_waiting_for_others(stack: str) -> bool:
    """Whether the innermost frame is of TensorFlow or ours: its own code has nothing to do."""
    path = next((path for path, _, _ in _frames(stack)), None)
    return path is not None and any(part in path for part in _WAITING)


def _frames(stack: str) -> list[tuple[str, str, str]]:
    """Of the thread that comes first, without the means of waiting."""
    found: list[tuple[str, str, str]] = _INNERMOST.findall(stack.strip().partition("\n\n")[0])
    return [each for each in found if not each[0].endswith(_MEANS)]


def _place(stack: str) -> str:
    """The innermost frame outside of TensorFlow and us, else the innermost of all."""
    frames = _frames(stack) or _INNERMOST.findall(stack)
    own = [each for each in frames if not any(part in each[0] for part in _WAITING)]
    for path, line, function in own or frames:
        return f"{path.rpartition('/')[2]}:{line} ({function})"
    return ""


def _doing(member: Member) -> str:
    return f"section {member.section.value!r} at step {member.step}"


def _stand(member: Member, late: Collection[MemberId]) -> str:
    place = _place(member.stack)
    what = "no progress either" if member.id in late else "not late"
    return f"{member.id}: {what}, {_doing(member)}{f', in {place}' if place else ''}"
