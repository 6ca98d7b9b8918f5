"""The two clocks: silence first means *lost* (a diagnosis), later *fenced*
(the agent must have stopped its member by itself)."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.member import Member
from coordinator.core.model import Cause, ExitReport, MemberPhase, RunSpec

STOP_BOUND = 20.0
"""Seconds within which a sentinel that was told to stop has stopped, beyond the grace: SIGTERM
1 s, kill loop 10 s, report 3 s (``executor_agent.core.supervision``), and a margin."""


def deadline(member: Member, spec: RunSpec) -> float:
    """When silence has its next consequence; infinity when it has none."""
    if member.phase is MemberPhase.LOST:
        return member.last_heard_at + spec.fence_timeout + STOP_BOUND
    if member.phase.is_live:
        return member.last_heard_at + spec.liveness_ttl
    return float("inf")


def lost_report(member: Member, now: float) -> ExitReport:
    """What is known of a member that has just been lost."""
    text = (
        f"its agent was not heard of for {now - member.last_heard_at:.0f} s: the host, the network "
        "or the agent is gone; log and tombstone, if any: "
        f"{member.executor and member.executor.directory}"
    )
    return ExitReport(Cause.LOST_CONTACT, message=text)


class SilenceWatch:
    """Finds members whose deadline has come without looking at all of them on every beat.

    ``next_at`` is a lower bound of all deadlines: beats only move deadlines later, so it is
    recomputed when it comes, about once in a ``liveness_ttl``.
    """

    __slots__ = ("_members", "_spec", "next_at")

    def __init__(self, members: Iterable[Member], spec: RunSpec) -> None:
        self._members = tuple(members)
        self._spec = spec
        self.next_at = float("inf")

    def expect(self, member: Member) -> None:
        """A member's deadline may be earlier than all others now."""
        self.next_at = min(self.next_at, deadline(member, self._spec))

    def due(self, now: float) -> list[Member]:
        """Members whose deadline has come, the longest silent first; the caller moves them on,
        then calls ``rearm``."""
        if now < self.next_at:
            return []
        due = [member for member in self._members if deadline(member, self._spec) <= now]
        return sorted(due, key=lambda member: member.last_heard_at)

    def rearm(self) -> None:
        """Recomputes ``next_at``."""
        self.next_at = min(
            (deadline(member, self._spec) for member in self._members), default=float("inf")
        )

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away: nobody's silence counts for that long."""
        for member in self._members:
            if member.is_watched:
                member.last_heard_at += seconds
        self.rearm()
