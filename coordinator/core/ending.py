"""How a run ends: one path, whatever the reason.

Members are told to stop stage by stage (``completion.STOP_STAGES``); a stage is over when its
members have ended or are lost, or at its deadline. After a *peer lost* nobody is told to stop
until the culprit has shown itself or had the time to (``verdict``).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from coordinator.core import verdict
from coordinator.core.completion import STOP_STAGES
from coordinator.core.durable import Constant, Ledger, Records, Tracked
from coordinator.core.durable_values import Instant, codec
from coordinator.core.holdout import Holdout
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.member import Member
from coordinator.core.model import (
    MAX_GRACE,
    Cause,
    ExitReport,
    Failure,
    MemberPhase,
    RunId,
    RunSpec,
)
from coordinator.core.transitions import MemberTrigger

_NEVER = float("inf")


def stop_bound(longest_grace: float) -> float:
    """Seconds after which a run that was told to stop has ended, if its hosts live: the stages
    come one after the other."""
    return len(STOP_STAGES) * (longest_grace + STOP_BOUND)


class Kind(enum.Enum):
    """What the run ends as."""

    WELL = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OBSERVED = codec(verdict.Observed)


def _is_unsettled(member: Member) -> bool:
    return not member.is_settled


class Ending(Tracked):
    """Mutable state of a run's end.

    ``failure`` is set beforehand when no member is to blame (a deadline passed), otherwise
    decided when all members are settled. ``stage`` is -1 until the first members are told.
    """

    __slots__ = (
        "_grace",
        "_members",
        "_observed",
        "_run_id",
        "_spec",
        "_stage_deadline",
        "_unsettled",
        "_unsettled_of",
        "_verdict_deadline",
        "failure",
        "kind",
        "reason",
        "stage",
    )

    DURABLE: ClassVar = {
        "_grace": codec(float | None),
        "_stage_deadline": codec(Instant),
        "_verdict_deadline": codec(Instant),
        "failure": codec(Failure | None),
        "kind": codec(Kind),
        "reason": codec(str),
        "stage": codec(int),
    }

    def __init__(
        self,
        run_id: RunId,
        spec: RunSpec,
        members: Sequence[Member],
        kind: Kind,
        reason: str,
        grace: float | None = None,
        failure: Failure | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.track(ledger, "ending", run_id)
        self._run_id = run_id
        self._spec = spec
        self._members = members
        self._unsettled = Holdout(members, _is_unsettled)
        self._unsettled_of = [
            Holdout([each for each in members if each.id.role in roles], _is_unsettled)
            for roles in STOP_STAGES
        ]
        self._grace = grace
        self._observed: list[verdict.Observed] = []
        self._stage_deadline = _NEVER
        self._verdict_deadline = _NEVER
        self.kind = kind
        self.reason = reason
        self.failure = failure
        self.stage = -1

    def restore(self, records: Records) -> None:
        """After the members."""
        records.load(self)
        while records.has("end", key := self._key_of_end(len(self._observed))):
            self._observed.append(records.value("end", key, _OBSERVED))
        self._stage_deadline = records.postponed(self._stage_deadline, MAX_GRACE + STOP_BOUND)
        self._verdict_deadline = records.postponed(self._verdict_deadline, self._spec.liveness_ttl)

    def _key_of_end(self, number: int) -> str:
        return f"{self._run_id}/{number}"

    def forget(self) -> None:
        super().forget()
        if self._ledger is not None:
            for number in range(len(self._observed)):
                self._ledger.remove(("end", self._key_of_end(number)))

    def observe(self, member: Member, now: float) -> None:
        """A member ended or was lost; without a report it never began."""
        report = member.exit
        if report is None:
            return
        end = verdict.Observed(member.id, report, member.executor, member.stop_sent)
        if self._ledger is not None:
            key = self._key_of_end(len(self._observed))
            self._ledger.put(("end", key), Constant(_OBSERVED, end))
        self._observed.append(end)
        if self.stage >= 0 or self.kind is not Kind.FAILED:
            return
        if verdict.is_primary(report):
            self._verdict_deadline = now
        elif self._verdict_deadline == _NEVER:
            self._verdict_deadline = now + self._spec.liveness_ttl

    def hurry(self, grace: float, now: float) -> list[Member]:
        """A later wish to stop can only shorten the time to leave. Returns the members to be told
        again: those that were told of more time."""
        in_stage = self._in_stage() if 0 <= self.stage < len(STOP_STAGES) else []
        leaving = [member for member in in_stage if member.phase.is_live]
        before = [self.grace_of(member) for member in leaving]
        self._grace = grace if self._grace is None else min(self._grace, grace)
        after = [self.grace_of(member) for member in leaving]
        if leaving:
            self._stage_deadline = min(self._stage_deadline, now + max(after) + STOP_BOUND)
        return [m for m, old, new in zip(leaving, before, after, strict=True) if new < old]

    def advance(self, now: float) -> list[Member]:
        """Goes on as far as it can. Returns the members to be told to stop now."""
        if self.stage < 0 and self._waits_for_culprit(now):
            return []
        told: list[Member] = []
        while self.stage < len(STOP_STAGES):
            if self.stage >= 0 and not self._stage_is_over(now):
                return told
            self.stage += 1
            if self.stage < len(STOP_STAGES):
                told += self._tell(now)
        self._stage_deadline = _NEVER
        return told

    def _waits_for_culprit(self, now: float) -> bool:
        if self.kind is not Kind.FAILED or self.failure is not None:
            return False
        return now < self._verdict_deadline and self._unsettled.find() is not None

    def _in_stage(self) -> list[Member]:
        return [member for member in self._members if member.id.role in STOP_STAGES[self.stage]]

    def _stage_is_over(self, now: float) -> bool:
        if now < self._stage_deadline and self._unsettled_of[self.stage].find() is not None:
            return False
        waiting = [member for member in self._in_stage() if not member.is_settled]
        for member in waiting:
            member.move(MemberTrigger.LOSE, now)
            text = "its agent is heard of, but did not stop it in time"
            member.exit = ExitReport(Cause.LOST_CONTACT, message=text)
            self.observe(member, now)
        return True

    def _tell(self, now: float) -> list[Member]:
        told: list[Member] = []
        longest = 0.0
        for member in self._in_stage():
            if member.phase.has_ended:
                continue
            if member.phase is MemberPhase.LOST:  # not waited for, but it may come back
                member.stop_sent = True
                told.append(member)
            elif member.phase.is_live:
                longest = max(longest, self.grace_of(member))
                member.stop_sent = True
                told.append(member)
            else:
                member.move(MemberTrigger.STOP, now)
        self._stage_deadline = now + longest + STOP_BOUND
        return told

    def grace_of(self, member: Member) -> float:
        """Seconds this member may take to leave; nothing that has not begun needs any."""
        if member.phase in (MemberPhase.RESERVED, MemberPhase.READY):
            return 0.0
        role_grace = self._spec.grace_of(member.id.role)
        return role_grace if self._grace is None else min(self._grace, role_grace)

    def next_deadline(self) -> float:
        """When ``advance`` should be called again, whatever happens."""
        return self._verdict_deadline if self.stage < 0 else self._stage_deadline

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away for so long."""
        self._stage_deadline += seconds
        self._verdict_deadline += seconds

    def settle(self) -> None:
        """All members are settled: decide who is to blame."""
        if self.kind is not Kind.FAILED:
            return
        found = verdict.decide(self._observed)
        if self.failure is None:
            self.failure = found or Failure(Cause.TASK_FAILED, self.reason)
        elif found is not None and not self.failure.others:
            others = (found.summary, *found.others)
            self.failure = replace(self.failure, others=others)
