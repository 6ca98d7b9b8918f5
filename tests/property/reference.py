"""What may happen to one run, as somebody outside sees it: the judge of the property tests.

It knows the events that went in and the views and effects that came out, nothing of the core's
inside, and says so when a law is broken. Instants of its own are moved by pauses like the core's.
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.core import completion, effects, errors, events
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import (
    Cause,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    RunPhase,
    RunView,
)

OPEN = (RunPhase.FORMING, RunPhase.RUNNING)
AT_WORK = (RunPhase.RUNNING, RunPhase.RESTARTING)


class End(NamedTuple):
    """How one member ended; the smallest is to blame."""

    after_stop: bool
    is_bystander: bool
    step: float
    member: MemberId


class Reference:
    """Who holds which slot, who was heard when, who was told to leave when, who ended how."""

    def __init__(self) -> None:
        self.holder: dict[MemberId, IncarnationId] = {}
        self.past: set[tuple[MemberId, IncarnationId]] = set()
        self.heard_at: dict[MemberId, float] = {}
        self.step = 0
        self._begin_generation()

    def _begin_generation(self) -> None:
        self.leave_by: dict[MemberId, float] = {}
        self.completed: set[MemberId] = set()
        self.ends: list[End] = []
        self.fate: RunPhase | None = None
        self.is_decided = False  # by Spark's word on a task that nobody spoke for
        self.first_end_at = float("inf")
        self.had_culprit = False  # whose end was the beginning of the end

    def answer(self, event: events.Event, run: RunView) -> type[object]:
        """What a claim, or a word from a member, must be answered with."""
        before = {member.id: member for member in run.members}.get(event.member)
        holds = before is not None and self.holder.get(before.id) == event.incarnation
        if isinstance(event, events.TaskReturned):
            return errors.InvalidReservation if before is None else tuple
        if not isinstance(event, events.ReservationRequested):
            return tuple if holds else errors.StaleIncarnation
        if before is None:
            return errors.InvalidReservation
        restarts = run.phase is RunPhase.RESTARTING
        if run.phase not in OPEN and not restarts and (holds or not before.phase.is_live):
            return errors.RunOver
        if holds and (before.phase.is_live or before.phase is MemberPhase.LOST):
            return effects.Granted
        if (before.id, event.incarnation) in self.past:
            return errors.StaleIncarnation
        vacant = before.phase in (MemberPhase.EXPECTED, MemberPhase.FENCED)
        if run.phase is RunPhase.RUNNING and before.phase is MemberPhase.EXPECTED:
            is_known = before.endpoint is not None and before.endpoint.port == event.endpoint.port
            return effects.Granted if is_known else effects.StandBy
        return effects.Granted if vacant and run.phase is RunPhase.FORMING else effects.StandBy

    def pause(self, seconds: float) -> None:
        """The coordinator was away: all clocks are moved."""
        for clock in (self.heard_at, self.leave_by):
            clock.update({slot: at + seconds for slot, at in clock.items()})
        self.first_end_at += seconds

    def restart(self, now: float) -> None:
        """The coordinator has come back: everybody's silence begins anew."""
        self.heard_at = dict.fromkeys(self.heard_at, now)

    def judge(
        self,
        event: events.Event,
        before: RunView,
        after: RunView,
        done: list[effects.Effect],
        now: float,
    ) -> None:
        """One accepted event. Raises AssertionError when a law is broken."""
        self.step += 1
        assert after.generation >= before.generation
        assert after.revision >= before.revision
        if before.phase.is_terminal:
            assert after == before, "a terminal run never changes"
            return
        assert after.restart_count >= before.restart_count
        self._take_in(event, before, now)
        if after.phase is RunPhase.FORMING and before.phase is not RunPhase.FORMING:
            self._judge_reform(before, after)
            return
        for old, new in zip(before.members, after.members, strict=True):
            self._judge_member(old, new, before, now)
        self._judge_fate(event, before, after)
        self._judge_commands(after, done, now)
        if after.settled:
            self._judge_verdict(before, after)
        is_over = after.phase not in (RunPhase.FORMING, RunPhase.RESTARTING)
        if is_over and all(m.phase.has_ended for m in after.members):
            assert after.phase.is_terminal, "all members have ended, the run has not"

    def _judge_reform(self, before: RunView, after: RunView) -> None:
        assert before.phase in AT_WORK
        assert 0 < after.restart_count <= before.restart_count + 1
        assert after.generation == before.generation, "it grows when the gang starts"
        assert {member.phase for member in after.members} == {MemberPhase.EXPECTED}
        self._begin_generation()

    def _take_in(self, event: events.Event, before: RunView, now: float) -> None:
        slot = getattr(event, "member", None)
        if slot is None or isinstance(event, events.SessionClosed):
            return
        old = next(member for member in before.members if member.id == slot)
        if isinstance(event, events.TaskReturned):  # Spark's word; the member said nothing
            watched = old.phase.is_live or old.phase is MemberPhase.LOST
            holds = self.holder.get(slot) == event.incarnation and watched
            at_work = before.phase is RunPhase.RUNNING
            if holds and at_work and event.report.cause is Cause.COMPLETED:
                self.completed.add(slot)
            if before.phase is RunPhase.FORMING and old.phase is MemberPhase.EXPECTED:
                self.is_decided = True
            return
        if isinstance(event, events.ReservationRequested):
            if self.answer(event, before) is not effects.Granted:
                return
            if self.holder.get(slot) != event.incarnation:
                self.holder[slot] = event.incarnation
                self.past.add((slot, event.incarnation))
                self.heard_at[slot] = now
        if old.phase is not MemberPhase.LOST or before.phase is RunPhase.FORMING:
            self.heard_at[slot] = now
        if isinstance(event, events.ProcessEnded) and old.phase.is_live:
            is_ours = event.generation == before.generation > 0
            if is_ours and event.report.cause is Cause.COMPLETED:
                self.completed.add(slot)

    def _judge_member(self, old: MemberView, new: MemberView, before: RunView, now: float) -> None:
        slot, spec = new.id, before.spec
        assert new.incarnation == self.holder.get(slot), "the slot is held by somebody else"
        silence = now - self.heard_at.get(slot, now)
        if new.phase is MemberPhase.LOST and old.phase is not MemberPhase.LOST:
            late = now >= self.leave_by.get(slot, float("inf"))
            assert late or silence >= spec.liveness_ttl, "lost without reason"
        if new.phase is MemberPhase.FENCED and old.phase is not MemberPhase.FENCED:
            assert silence >= spec.fence_timeout + STOP_BOUND, "fenced while it may live"
        ended = new.phase.has_ended or new.phase is MemberPhase.LOST
        if (
            before.phase is not RunPhase.FORMING
            and ended
            and (new.phase, new.exit) != (old.phase, old.exit)
        ):
            self._end(new, self.step)

    def _end(self, member: MemberView, step: float) -> None:
        if member.exit is not None and member.exit.cause.is_failure:
            is_bystander = member.exit.cause is Cause.PEER_LOST
            told = member.id in self.leave_by
            self.ends.append(End(told, is_bystander, step, member.id))

    def _judge_fate(self, event: events.Event, before: RunView, after: RunView) -> None:
        counting = completion.completion_roles(before.spec)
        complete = all(m.id in self.completed for m in after.members if m.id.role in counting)
        if before.phase in OPEN and after.phase not in OPEN:
            asked = isinstance(event, events.StopRequested | events.OwnerLost)
            well = RunPhase.SUCCEEDED if complete else RunPhase.FAILED
            self.fate = RunPhase.CANCELLED if asked else well
            self.had_culprit = bool(self.ends)
            assert after.phase is not RunPhase.RESTARTING or self.fate is RunPhase.FAILED
            if isinstance(event, events.TimePassed) and after.failure is not None:
                waits = before.phase is RunPhase.FORMING or any(
                    member.phase is MemberPhase.STARTING for member in before.members
                )
                lost = any(member.phase is MemberPhase.LOST for member in after.members)
                assert waits or lost, "timed out while nobody was waited for"
            if before.phase is RunPhase.FORMING:  # who was lost then was being replaced
                culprit = getattr(event, "member", None)
                for new in after.members:
                    if new.phase.has_ended or new.phase is MemberPhase.LOST:
                        self._end(new, self.step + (new.id != culprit) / 2)
        elif before.phase is RunPhase.RESTARTING and after.phase is not RunPhase.RESTARTING:
            if isinstance(event, events.StopRequested | events.OwnerLost):
                self.fate = RunPhase.CANCELLED
            else:
                assert after.failure is not None, "given up without a reason"
        else:
            assert not (complete and after.phase in OPEN), "complete, and goes on"
        if after.phase.is_terminal:
            assert after.phase is self.fate

    def _judge_commands(self, after: RunView, done: list[effects.Effect], now: float) -> None:
        members = {member.id: member for member in after.members}
        starts = [effect for effect in done if isinstance(effect, effects.SendStart)]
        for start in starts:
            assert start.incarnation == self.holder[start.member]
            assert start.generation == after.generation
            assert sum(map(len, start.spec.values())) == len(members)
        if self.ends and self.fate is RunPhase.FAILED:
            self.first_end_at = min(self.first_end_at, now)
        for stop in (effect for effect in done if isinstance(effect, effects.SendStop)):
            assert stop.incarnation == self.holder[stop.member]
            assert stop.grace >= 0
            phase = members[stop.member].phase
            if after.phase in OPEN or not (phase.is_live or phase is MemberPhase.LOST):
                continue  # somebody who should be gone attends again
            stage = next(s for s in completion.STOP_STAGES if stop.member.role in s)
            for earlier in completion.STOP_STAGES[: completion.STOP_STAGES.index(stage)]:
                live = [m for m in after.members if m.id.role in earlier and m.phase.is_live]
                assert not live, f"{stop.member} is told to stop before {live}"
            if self.fate is RunPhase.FAILED and after.failure is None and self.had_culprit:
                waited = now >= self.first_end_at + after.spec.liveness_ttl
                assert waited or not all(end.is_bystander for end in self.ends), "too early"
            by = now + stop.grace + STOP_BOUND
            self.leave_by[stop.member] = min(self.leave_by.get(stop.member, by), by)

    def _judge_verdict(self, before: RunView, after: RunView) -> None:
        if before.settled:
            assert after.failure == before.failure, "a settled outcome changed"
            return
        assert (after.failure is not None) == (self.fate is RunPhase.FAILED)
        is_decided = self.is_decided or (
            after.failure is not None
            and after.failure.cause in (Cause.TASK_FAILED, Cause.GANG_INCOMPLETE)
        )
        if after.failure is not None and not is_decided:
            best = min(end[:3] for end in self.ends)
            blamed = [end[:3] for end in self.ends if end.member == after.failure.member]
            assert best in blamed, f"{best} is to blame, not {after.failure.member}: {blamed}"
