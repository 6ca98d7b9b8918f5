"""One run: the state machine behind ``TFCluster.run``. Driven by ``machine`` alone.

Every event of a member carries its incarnation and, once there is one, its generation; what comes
from an older one changes nothing (R3). A refused event raises before anything is changed.
"""

from __future__ import annotations

from coordinator.core import claims, diagnosis, events, liveness
from coordinator.core import verdict as verdicts
from coordinator.core.effects import Effect, Noted, SendStop, StandBy
from coordinator.core.ending import Kind
from coordinator.core.errors import InvalidReservation, StaleIncarnation
from coordinator.core.gang_leases import check_offer
from coordinator.core.member import Member
from coordinator.core.model import (
    Cause,
    ExitReport,
    Failure,
    MemberPhase,
    RunPhase,
)
from coordinator.core.restarts import with_newest_save
from coordinator.core.run_restart import RestartableRun
from coordinator.core.transitions import MemberTrigger, RunTrigger, next_run_phase

_NEVER = float("inf")
_ENDED = {
    Kind.WELL: RunTrigger.ENDED_WELL,
    Kind.FAILED: RunTrigger.ENDED_FAILED,
    Kind.CANCELLED: RunTrigger.ENDED_CANCELLED,
}


class Run(RestartableRun):
    """What happens to one run."""

    # -- events of the owner ---------------------------------------------------------------

    def stop(self, reason: str, grace: float | None, now: float) -> list[Effect]:
        """Somebody wants the end. The first reason stays; a second wish may only hurry."""
        if self.phase.is_terminal:
            return []
        if self._ending is not None:
            if self.phase is RunPhase.RESTARTING:
                self._call_off(reason)
            hurried = self._ending.hurry(grace, now) if grace is not None else []
            return [*map(self._stop_command, hurried), *self._go_on(now)]
        return self._end(Kind.CANCELLED, RunTrigger.STOP_ASKED, reason, now, grace=grace)

    def own(self, event: events.OwnerCame | events.OwnerLeft, now: float) -> list[Effect]:
        """A session of the owner has opened, or closed: its clock begins with the last one."""
        self._owner.attach() if isinstance(event, events.OwnerCame) else self._owner.detach(now)
        return []

    def report_scheduling(self, event: events.SchedulingReported, now: float) -> list[Effect]:
        """Spark's word: it feeds the diagnosis, and ends the wait for a task that never comes."""
        if self.phase.is_terminal:
            return []
        self._slots = event.slots
        is_current = event.restarts == self._restarts.count  # else it is about jobs of before
        for slot, task in event.tasks.items():
            member = self._members.get(slot)
            if member is not None and (is_current or verdicts.is_cancelled(task)):
                member.task = task
        given_up = verdicts.given_up(self.phase, self._members.values())
        return self._changed() if given_up is None else self._fail_task(given_up, now)

    def _fail_task(self, member: Member, now: float) -> list[Effect]:
        failure = verdicts.of_job(member.view())
        if not verdicts.is_cancelled(member.task):
            if self._spend_on_job(member, failure, now):
                return [*self._leases.give_back(now), *self._changed()]
            return self._fail(failure, now)
        if self.phase is RunPhase.RESTARTING:
            self._give_up(failure)
            return self._go_on(now)
        trigger = RunTrigger.FAILED
        return self._end(Kind.FAILED, trigger, failure.summary, now, failure=failure)

    def task_returned(self, event: events.TaskReturned, now: float) -> list[Effect]:
        """The proof by way of Spark: as good as the agent's own report, which mostly came first.
        A job that has returned is not retried, so a gang that waits for it waits in vain."""
        member = self._members.get(event.member)
        if member is None:
            raise InvalidReservation(f"run {self.run_id} has no {event.member}")
        is_holder = member.incarnation == event.incarnation and member.is_watched
        report = self._counted(event.report, self._gang.generation)
        # Once there were restarts the driver answers a job's end with another job.
        is_awaited = member.phase is MemberPhase.EXPECTED and not self._restarts.count
        if self.phase is RunPhase.FORMING and (is_holder or is_awaited):
            return self._forming_task_returned(member, report, now)
        if is_holder:
            return self._process_ended(member, report, now)
        if member.incarnation == event.incarnation:
            self._leases.ended(member.id, report, now)  # late, but a proof
        return []

    def _forming_task_returned(
        self, member: Member, report: ExitReport, now: float
    ) -> list[Effect]:
        if member.is_watched and report.cause not in verdicts.VACATING:
            return self._process_ended(member, report, now)
        is_replaced = self._spend_while_forming(member, report, now)
        if member.is_watched:
            member.exit = report
            member.move(MemberTrigger.VACATE, now)
        if is_replaced:
            return [*self._leases.give_back(now), *self._changed()]
        return self._fail(verdicts.of_task(member.id, report, member.executor), now)

    # -- events of a member ----------------------------------------------------------------

    def reserve(self, event: events.ReservationRequested, now: float) -> list[Effect]:
        """A task attempt claims its slot."""
        member = self._members.get(event.member)
        if member is None:
            raise InvalidReservation(f"run {self.run_id} has no {event.member}")
        is_avoided = self._is_avoided(event, now)
        given = claims.answer(self.phase, self.spec, member, event, is_avoided=is_avoided)
        if isinstance(given, StandBy):
            return [given]
        if member.incarnation == event.incarnation:
            member.last_heard_at = max(member.last_heard_at, now)
            return [given]
        if self._pauses(member, now):
            return [claims.stand_by(event, "the pause after its last failure", claims.SOON)]
        check_offer(self.spec, event.member, event.executor, event.gpus)
        problem = self._cannot_rejoin(member, event)
        if problem:
            stand_by = claims.stand_by(event, problem)
            return [stand_by, *self._fail(self._of_stranger(member, problem), now)]
        member.reserve(event.incarnation, event.executor, event.endpoint, now)
        self._leases.offer(member, event.executor, event.gpus, now)
        self._silence.expect(member)
        return [given, *self._changed()]

    def attend(self, event: events.MemberEvent, now: float) -> list[Effect]:
        """Something from the holder of a slot."""
        member = self._members.get(event.member)
        if member is None or member.incarnation != event.incarnation:
            raise StaleIncarnation(
                f"{event.member} of run {self.run_id} is not held by {event.incarnation}"
            )
        if isinstance(event, events.SessionClosed):
            return []  # often our own transport's word: no sign of life
        if isinstance(event, events.Heard):  # refused, it is no sign of life either
            self._leases.renew(member, event.leases, now)
        if member.phase is not MemberPhase.LOST or self.phase is RunPhase.FORMING:
            member.last_heard_at = max(member.last_heard_at, now)  # else its fence never came
        if isinstance(event, events.ProcessEnded):  # never a return: it says that it is gone
            return self._ended(member, event, now)
        effects = self._return_if_lost(member, now)
        match event:
            case events.Heard():
                return effects
            case events.SessionOpened():
                return effects + self._command_again(member)
            case events.GpusInspected() | events.GpusClaimed():
                effects += self._gang.hear_of_gpus(member, event, now)
                return effects + self.form_if_ready(now)
            case events.ProcessReady():
                return effects + self._ready(member, now)
            case events.MainEntered(generation=generation):
                return effects + self._entered(member, generation, now)
            case events.ProgressMade():
                return effects + self._progress(member, event, now)
            case events.StackDumped(text=text):
                return effects + self._hear_stack(member, text, now)
            case _:
                raise AssertionError(f"unknown event {event!r}")

    def _return_if_lost(self, member: Member, now: float) -> list[Effect]:
        if member.phase is not MemberPhase.LOST or self.phase is not RunPhase.FORMING:
            return []
        member.exit = None
        member.move(
            MemberTrigger.RETURN_READY if member.is_ready else MemberTrigger.RETURN_RESERVED, now
        )
        self._silence.expect(member)
        return [*self._changed(), *self.form_if_ready(now)]

    def _command_again(self, member: Member) -> list[Effect]:
        """A session may have been lost with a command in it; commands are idempotent."""
        if member.stop_sent or not member.is_watched:
            return [self._stop_command(member)]
        if member.phase is MemberPhase.STARTING:
            return [self._gang.start_command(member)]
        return self._leases.said_last(member)

    def _ready(self, member: Member, now: float) -> list[Effect]:
        member.is_ready = True
        if member.phase is not MemberPhase.RESERVED:
            return []
        member.move(MemberTrigger.READY, now)
        if self.phase is RunPhase.RUNNING:  # it starts again alone
            return [*self._changed(), self._gang.rejoin(member, now)]
        return [*self._changed(), *self.form_if_ready(now)]

    def _entered(self, member: Member, generation: int, now: float) -> list[Effect]:
        if generation != self._gang.generation or member.phase is not MemberPhase.STARTING:
            return []
        member.move(MemberTrigger.ENTER, now)
        self._clear_forming_deadline(now)
        return self._changed()

    def _clear_forming_deadline(self, now: float) -> None:
        is_due = self.phase is RunPhase.RUNNING and self._forming_deadline != _NEVER
        if is_due and self._unstarted.find() is None:
            self._forming_deadline = _NEVER
            self._forget_stall()
            self._stalls.begin(now)

    def _progress(self, member: Member, event: events.ProgressMade, now: float) -> list[Effect]:
        if event.generation != self._gang.generation or not member.phase.is_live:
            return []
        member.step, member.metrics = event.step, with_newest_save(member, event.metrics)
        member.section, member.progress_at = event.section, now
        self._stalls.expect(member)
        return self._changed()

    def _ended(self, member: Member, event: events.ProcessEnded, now: float) -> list[Effect]:
        if event.generation not in (0, self._gang.generation):
            return []
        if not member.is_watched:
            self._leases.ended(member.id, event.report, now)  # late, but a proof
            return []
        return self._process_ended(member, self._counted(event.report, event.generation), now)

    def _counted(self, report: ExitReport, generation: int) -> ExitReport:
        if self._ending is not None:
            return report
        return verdicts.unasked(report, generation, forming=self.phase is RunPhase.FORMING)

    def _process_ended(self, member: Member, report: ExitReport, now: float) -> list[Effect]:
        member.exit = report
        if self.phase is RunPhase.FORMING and report.cause in verdicts.VACATING:
            member.move(MemberTrigger.VACATE, now)
            if member.task.failed:
                return self._fail_task(member, now)
            return [*self._leases.give_back(now), *self._changed()]
        if self.phase is RunPhase.FORMING and self._spend_while_forming(member, report, now):
            member.move(MemberTrigger.VACATE, now)
            return [*self._leases.give_back(now), *self._changed()]
        self._leases.ended(member.id, report, now)
        stopped = report.cause is Cause.STOPPED
        member.move(MemberTrigger.STOP if stopped else MemberTrigger.EXIT, now)
        return self._member_settled(member, report, now)

    # -- the gang --------------------------------------------------------------------------

    def form_if_ready(self, now: float) -> list[Effect]:
        """Maybe what has changed, here or in the book of GPUs, is what the gang waits for."""
        if self.phase is not RunPhase.FORMING:  # "ready" may cross our "stop"
            return []
        if self._unready.find() is not None:
            return []
        if not self._leases.is_complete:
            asked = self._leases.advance(now)
            return [*asked, *self._changed()] if asked else []
        problem = self._gang.problem()
        if problem:
            return self._fail(Failure(Cause.TASK_FAILED, problem), now)
        self.phase = next_run_phase(self.phase, RunTrigger.GANG_READY)
        return [*self._changed(), *self._gang.start(now)]

    def _stop_command(self, member: Member) -> SendStop:
        """To a member of a run that goes on, only a fenced one: it has no time left."""
        assert member.incarnation is not None
        reason, grace = "fenced", 0.0
        if self._ending is not None:
            reason, grace = self._ending.reason, self._ending.grace_of(member)
        generation, again = self._gang.generation, self.phase is RunPhase.RESTARTING
        who = self.run_id, member.id, member.incarnation
        return SendStop(*who, generation, reason, grace, again)

    # -- the end ---------------------------------------------------------------------------

    def _member_settled(self, member: Member, report: ExitReport, now: float) -> list[Effect]:
        if self._ending is None and report.cause.is_failure:
            if self._restarts_alone(member, report, now):
                return self._changed()
            reason = f"{member.id} failed: {report.cause.value}"
            return self._end_failed(reason, report.cause, now, first=member)
        if self._ending is not None:
            self._ending.observe(member, now)
            return self._go_on(now)
        self._clear_forming_deadline(now)
        if self._unfinished.find() is None:
            return self._end(Kind.WELL, RunTrigger.COMPLETED, "training is complete", now)
        return self._changed()

    def _fail(self, failure: Failure, now: float) -> list[Effect]:
        return self._end_failed(failure.summary, failure.cause, now, failure=failure)

    def _end_failed(
        self,
        reason: str,
        cause: Cause,
        now: float,
        *,
        failure: Failure | None = None,
        first: Member | None = None,
    ) -> list[Effect]:
        """The end of this generation, at least."""
        may_recover = self._may_recover(cause)
        trigger = RunTrigger.RECOVER if may_recover else RunTrigger.FAILED
        return self._end(Kind.FAILED, trigger, reason, now, failure=failure, first=first)

    def _end(
        self,
        kind: Kind,
        trigger: RunTrigger,
        reason: str,
        now: float,
        *,
        grace: float | None = None,
        failure: Failure | None = None,
        first: Member | None = None,
    ) -> list[Effect]:
        # Said at once: whom a later stage stops would keep its claims from others until then.
        back = self._leases.give_back(now) if self.phase is RunPhase.FORMING else []
        self.phase = next_run_phase(self.phase, trigger)
        self._forming_deadline = _NEVER
        self._forget_stall()
        self._ending = self._new_ending(kind, reason, grace, failure)
        # What had ended before counts too, but the first cause first: others were being replaced.
        for member in sorted(self._members.values(), key=lambda each: each is not first):
            if member.is_settled:
                self._ending.observe(member, now)
        return [*back, Noted(self.run_id, f"is to end, {kind.value}: {reason}"), *self._go_on(now)]

    def _go_on(self, now: float) -> list[Effect]:
        assert self._ending is not None
        told = self._ending.advance(now)
        effects: list[Effect] = [*map(self._stop_command, told)]
        for member in told:
            self._leases.leaving(member.id, now)
        # No rearming: whatever happens here moves the deadline of a member's silence later only.
        if not self._is_decided and self._unsettled.find() is None:
            self._decide(now)
        if self._unended.find() is None and self.phase is RunPhase.RESTARTING:
            return effects + (self._reform(now) if now >= self._restart_at else self._changed())
        if self._unended.find() is None:
            self.phase = next_run_phase(self.phase, _ENDED[self._ending.kind])
            self.ended_at = now
        return effects + self._changed()

    # -- time ------------------------------------------------------------------------------

    def pass_time(self, now: float) -> list[Effect]:
        """Deadlines that have come."""
        effects = self._notice_silence(now)
        self._silence.rearm()
        if now >= self._forming_deadline and self._ending is None:
            effects += self._time_out(now)
        effects += self._notice_stalls(now)
        if now >= self._owner.deadline:
            effects += self.stop(self._owner.reason, None, now)
        if self._ending is not None and not self.phase.is_terminal:
            effects += self._go_on(now)
        return effects

    def _notice_silence(self, now: float) -> list[Effect]:
        due = self._silence.due(now)
        lost = [member for member in due if member.phase is not MemberPhase.LOST]
        effects: list[Effect] = []
        for member in due:  # all before anybody is told to stop: their silence is not our doing
            if member.phase is MemberPhase.LOST:
                member.move(MemberTrigger.FENCE, now)
                effects += self._leases.lost(member.id, now)
            else:
                member.move(MemberTrigger.LOSE, now)
                member.exit = liveness.lost_report(member, now)
        if lost and self.phase is RunPhase.RUNNING:
            reason = f"{lost[0].id} failed: {Cause.LOST_CONTACT.value}"
            return effects + self._end_failed(reason, Cause.LOST_CONTACT, now, first=lost[0])
        if self._ending is not None:
            for member in lost:
                self._ending.observe(member, now)
        return effects + self._changed() if due else []

    def _time_out(self, now: float) -> list[Effect]:
        late = self._unstarted.find()
        is_back = late is not None and (late.is_rejoining or self._restarts.count > 0)
        if self.phase is RunPhase.RUNNING and late is not None and is_back:
            text = f"{late.id} did not come back within {self.spec.reservation_timeout:g} s"
            return self._fail(Failure(Cause.PREEMPTED, text, late.id), now)
        text = diagnosis.timed_out(self.view(now), now)
        return self._fail(Failure(Cause.GANG_INCOMPLETE, text), now)
