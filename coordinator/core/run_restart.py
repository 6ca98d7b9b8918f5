"""A run that goes on after a failure: its members have ended, and start again.

The way is that of an ending up to the verdict, so that the first cause is the same in both; then
the policy decides. Everybody is proven gone or fenced before the next generation forms, which it
does as the first one did. Driven by ``run`` alone.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import replace

from coordinator.core import stalls
from coordinator.core import verdict as verdicts
from coordinator.core.effects import DumpStack, Effect
from coordinator.core.ending import Kind
from coordinator.core.events import ReservationRequested
from coordinator.core.member import Member
from coordinator.core.model import Cause, ExitReport, Failure, Role, RunPhase, TaskState
from coordinator.core.run_state import RunState
from coordinator.core.transitions import RunTrigger, next_run_phase

_NEVER = float("inf")

_TASK_WENT = re.compile(
    r"ExecutorLostFailure|Python worker exited"
    r"|Caused by: java\.(net\.SocketException|io\.EOFException)"
)
"""What Spark says of a task whose executor or process has died, and not of one that failed. Its
sentence comes shortened in the middle; the second line is how the JVM noticed a process's end."""

MAX_STACK = 16 * 1024
"""Characters of a member's stack that are kept."""


class RestartableRun(RunState):
    """The part of a run that answers failures."""

    def _may_recover(self, cause: Cause) -> bool:
        """Whether this failure may be answered with a restart; the verdict may still differ."""
        if self.phase is not RunPhase.RUNNING:
            return False
        members = self._members.values()
        if cause is Cause.PEER_LOST:  # the culprit has not shown itself yet
            return self._restarts.is_enabled and self._restarts.has_left(members)
        return self._restarts.may_answer(cause, members)

    # -- the gang --------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        """All are settled and the first cause is known: a restart, or the end after all."""
        assert self._ending is not None
        self._ending.settle()
        failure, members = self._ending.failure, self._members.values()
        if self.phase is not RunPhase.RESTARTING or failure is None:
            self._settled = True
            if failure is not None:
                self._ending.failure = self._restarts.story(failure, members)
            return
        if self._restarts.may_answer(failure.cause, members):
            delay = self._restarts.spend(failure, members, self._gang.generation, now)
            self._restart_at = now + delay
            return
        self.phase = next_run_phase(self.phase, RunTrigger.GIVE_UP)
        self._settled = True
        self._ending.failure = self._restarts.story(failure, members)

    def _give_up(self, failure: Failure) -> None:
        """While the gang is being restarted something comes that no restart can answer."""
        assert self._ending is not None
        self.phase = next_run_phase(self.phase, RunTrigger.GIVE_UP)
        self._ending.reason, self._ending.failure = failure.summary, failure
        self._restart_no_more(failure.summary)

    def _reform(self, now: float) -> list[Effect]:
        """Nothing of the last generation is left: the next one is awaited, as the first one was."""
        assert self._ending is not None
        self._ending.forget()
        self._ending = None
        self._restart_at = _NEVER
        self.phase = next_run_phase(self.phase, RunTrigger.REFORM)
        self._forming_deadline = now + self.spec.reservation_timeout
        for member in self._members.values():
            member.renew(now)
        self._gang.disband()
        return self._changed()

    def _call_off(self, reason: str) -> None:
        """Somebody wants the end while the gang is being restarted."""
        assert self._ending is not None
        self.phase = next_run_phase(self.phase, RunTrigger.STOP_ASKED)
        self._ending.kind, self._ending.reason = Kind.CANCELLED, reason
        self._ending.failure = None
        self._restart_no_more(reason)

    def _restart_no_more(self, why: str) -> None:
        if self._restart_at < _NEVER:  # it was decided already
            self._restarts.call_off(why)
        self._restart_at = _NEVER

    # -- stalls ----------------------------------------------------------------------------

    def _notice_stalls(self, now: float) -> list[Effect]:
        """Who is late is asked where it stands, and everybody else with it; then it is decided."""
        if not self._may_stall:
            return []
        if self._late:
            return self._blame_if_due(now)
        late = self._stalls.due(now)
        if not late:
            return []
        self._late = frozenset(each.id for each in late)
        self._blame_at = now + stalls.ANSWER_TIMEOUT
        asked = stalls.to_ask(self._members.values(), self._late)
        for member in asked:
            member.stack = ""
        self._unanswered = {each.id for each in asked}
        return [DumpStack(self.run_id, m.id, m.incarnation) for m in asked if m.incarnation]

    def _hear_stack(self, member: Member, text: str, now: float) -> list[Effect]:
        member.stack = text[:MAX_STACK]
        self._unanswered.discard(member.id)
        return self._blame_if_due(now) if self._late else []

    def _blame_if_due(self, now: float) -> list[Effect]:
        if self._unanswered and now < self._blame_at:
            return []
        asked, first = stalls.to_ask(self._members.values(), self._late), self._late
        self._forget_stall()
        timeouts = self.spec.stall
        late = {each.id for each in asked if stalls.deadline(each, timeouts) <= now}
        if not late & first:  # it has moved on, or has ended, meanwhile
            self._stalls.rearm()
            return []
        return self._fail(stalls.failure(asked, timeouts, now), now)

    def _forget_stall(self) -> None:
        self._late, self._unanswered, self._blame_at = frozenset(), set(), _NEVER

    @abstractmethod
    def _fail(self, failure: Failure, now: float) -> list[Effect]:
        """The end of this generation, at least."""

    # -- while it forms --------------------------------------------------------------------

    def _spend_while_forming(self, member: Member, report: ExitReport, now: float) -> bool:
        """Whether a member that has ended before the start is replaced, at the price of a restart
        that costs nobody else anything. Its slot is not vacated yet."""
        members = self._members.values()
        # Who stops by himself has lost us; the others have lost nobody yet.
        by_itself = report.cause is Cause.STOPPED
        cause = Cause.LOST_CONTACT if by_itself else report.cause
        if not self._restarts.may_answer(cause, members):
            return False
        failure = verdicts.of_task(member.id, report, member.executor)
        self._spend_on_one(replace(failure, cause=cause), now)
        return True

    def _spend_on_job(self, member: Member, failure: Failure, now: float) -> bool:
        """The same for a member whose Spark job has failed for good, with or before it. Once there
        were restarts the driver has answered that with other jobs, and all of them were in vain."""
        is_first = self.phase is RunPhase.FORMING and not self._restarts.count
        cause = _cause_of_job(member)
        if not is_first or not self._restarts.may_answer(cause, self._members.values()):
            return False
        self._spend_on_one(replace(failure, cause=cause), now)
        return True

    def _spend_on_one(self, failure: Failure, now: float) -> None:
        """From now on the driver submits another job for whoever has none."""
        members = self._members.values()
        self._restarts.spend(failure, members, self._gang.generation, now, alone=True)
        for each in members:
            if each.task.failed and not verdicts.is_cancelled(each.task):
                each.task = TaskState()

    def _is_avoided(self, event: ReservationRequested, now: float) -> bool:
        """Whether this host had better be left alone while others may still come."""
        if self.phase is not RunPhase.FORMING:
            return False
        host = event.executor.hostname
        avoided = self._restarts.avoided(now)
        if host not in avoided or self._is_short_of_time(now):
            return False
        hosts = {each.executor.hostname for each in self._members.values() if each.executor}
        return bool(hosts - avoided)

    def _pauses(self, member: Member, now: float) -> bool:
        """Whether a member that was restarted alone is to wait. For a gang the run itself does."""
        return self._restarts.pause(member.id, now) > 0 and not self._is_short_of_time(now)

    def _is_short_of_time(self, now: float) -> bool:
        """Nobody is kept waiting who could otherwise not come in time."""
        return now > self._forming_deadline - self.spec.reservation_timeout / 2

    # -- one member alone ------------------------------------------------------------------

    def _restarts_alone(self, member: Member, report: ExitReport, now: float) -> bool:
        """A worker under parameter servers is missed by nobody but the chief's coordinator, which
        waits for it: it comes back at its address, in the same generation."""
        roles = self.spec.roles
        serves = member.id.role is Role.WORKER and roles.chief and roles.ps
        counts = member.id.role in (self.spec.completion or {Role.CHIEF})
        if not serves or counts or self.spec.gpus.count(member.id.role):
            return False
        members = self._members.values()
        if not self._restarts.may_restart_alone(report.cause):
            return False
        if not self._restarts.may_answer(report.cause, members):
            return False
        text = verdicts.sentence(verdicts.Observed(member.id, report, member.executor, False))
        failure = Failure(report.cause, text, member.id, report)
        self._restarts.spend(failure, members, self._gang.generation, now, alone=True)
        member.renew(now)
        self._forming_deadline = now + self.spec.reservation_timeout
        return True

    def _cannot_rejoin(self, member: Member, event: ReservationRequested) -> str:
        """Why a member that starts again alone cannot: "" when it can. The others know it by its
        address alone."""
        old, new = member.endpoint, event.endpoint
        if self.phase is not RunPhase.RUNNING or old is None or old.address == new.address:
            return ""
        return f"{member.id} comes back at {new.address}, but the others know it at {old.address}"

    def _of_stranger(self, member: Member, problem: str) -> Failure:
        """Why the gang restarts instead of this member: as that is told, and paid, once."""
        alone = self._restarts.undo(member.id)
        if alone is None:
            return Failure(Cause.PREEMPTED, problem, member.id)
        return Failure(alone.cause, f"{alone.summary}; {problem}", member.id)


def _cause_of_job(member: Member) -> Cause:
    """Why the Spark job of an awaited member has failed, as far as a policy is concerned."""
    if member.exit is not None:  # it was there, and went with its task
        by_itself = member.exit.cause is Cause.STOPPED
        return Cause.LOST_CONTACT if by_itself else member.exit.cause
    return Cause.PREEMPTED if _TASK_WENT.search(member.task.message) else Cause.TASK_FAILED
