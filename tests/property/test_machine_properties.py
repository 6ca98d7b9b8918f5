"""Whatever happens, in whatever order: the core keeps its laws (see ``reference``), and waits end.

HYPOTHESIS_PROFILE=thorough looks much longer, and elsewhere each time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from coordinator.core import effects, events
from coordinator.core.errors import TfleaseError
from coordinator.core.machine import Machine
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
    Slots,
    TaskState,
)
from tests.property.reference import Reference
from tests.property.restarts import Disk, restarted
from tests.property.run_histories import (
    LIVENESS_TTL,
    NEVER,
    REPORTED,
    RESERVATION_TIMEOUT,
    SETTINGS,
    TIME_TO_END,
    TIME_TO_RESTART,
    attempts,
    pick,
    seconds,
    specs,
)


class Runs(RuleBasedStateMachine):
    """Several runs of one coordinator, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine("book", durable=True)
        self.disk = Disk()
        self.now = 0.0
        self.references: dict[RunId, Reference] = {}
        self.fresh = 10

    # -- one event -------------------------------------------------------------------------

    def views(self, machine: Machine | None = None) -> dict[RunId, RunView]:
        seen = machine or self.machine
        return {run_id: seen.view(run_id, self.now) for run_id in seen.run_ids()}

    def feed(self, event: events.Event) -> None:
        before, deadline = self.views(), self.machine.next_deadline()
        run = before.get(getattr(event, "run_id", RunId("")))
        expected = None
        if run is not None and hasattr(event, "incarnation"):
            expected = self.references[run.run_id].answer(event, run)
        try:
            done = self.machine.handle(event, self.now)
        except TfleaseError as error:
            assert type(error) is expected  # noqa: PT017 - most events are not refused
            assert self.views() == before, "a refused event changed something"
            assert self.machine.next_deadline() == deadline
            return
        finally:
            self.machine.check_invariants()
        if isinstance(event, events.ReservationRequested):
            assert [type(effect) for effect in done][:1] == [expected]
        else:
            assert expected in (None, tuple)
        self.judge(event, before, done)

    def judge(
        self,
        event: events.Event,
        before: dict[RunId, RunView],
        done: tuple[effects.Effect, ...],
    ) -> None:
        if isinstance(event, events.CoordinatorPaused):
            for reference in self.references.values():
                reference.pause(event.seconds)
        for run_id, after in self.views().items():
            if run_id not in before:
                continue
            own = [effect for effect in done if effect.run_id == run_id]
            if getattr(event, "run_id", run_id) != run_id:
                assert not own
                assert after == before[run_id], "an event of another run"
            else:
                self.references[run_id].judge(event, before[run_id], after, own, self.now)

    def pass_time(self, duration: float) -> None:
        self.now += duration
        for _ in range(3):
            self.feed(events.TimePassed())
            if self.machine.next_deadline() > self.now:
                return
        raise AssertionError("the deadline does not move: the engine would spin")

    # -- who ---------------------------------------------------------------------------------

    def run_at(self, index: int) -> RunView:
        views = list(self.views().values())
        open_ones = [view for view in views if not view.phase.is_terminal]
        return (open_ones or views)[index % len(open_ones or views)]

    def speaker(self, index: int, attempt: int) -> tuple[RunId, MemberId, IncarnationId]:
        run = self.run_at(index)
        member = run.members[(index // 7) % len(run.members)]
        if attempt == 0 and member.incarnation is not None:
            return run.run_id, member.id, member.incarnation
        return run.run_id, member.id, self.attempt(run.run_id, member.id, attempt)

    def attempt(self, run_id: RunId, slot: MemberId, number: int) -> IncarnationId:
        return IncarnationId(f"{run_id}/{slot}/{number}")

    def claim(
        self,
        run_id: RunId,
        slot: MemberId,
        incarnation: IncarnationId,
        known: Endpoint | None = None,
    ) -> None:
        number = sum(map(ord, incarnation)) * 1000 + slot.index * 10 + len(slot.role.value)
        executor = ExecutorInfo(hostname="host", boot_id="boot", pid=1)
        endpoint = known or Endpoint("10.0.0.1", number)
        self.feed(events.ReservationRequested(run_id, slot, incarnation, executor, endpoint))

    # -- rules -----------------------------------------------------------------------------

    @initialize(spec=specs, at_work=st.booleans())
    def first_run(self, spec: RunSpec, at_work: bool) -> None:
        self.create(spec, at_work)
        self.is_written()

    @precondition(lambda self: len(self.references) < 8 and self.open_runs() < 3)
    @rule(spec=specs, at_work=st.booleans())
    def another_run(self, spec: RunSpec, at_work: bool) -> None:
        self.create(spec, at_work)

    def create(self, spec: RunSpec, at_work: bool) -> None:
        run_id = RunId(f"run{len(self.references)}")
        self.references[run_id] = Reference()
        self.feed(events.RunCreated(run_id, spec))
        if at_work:
            self.get_ready(self.views()[run_id], leave_out=-1)
            self.enter_main(self.views()[run_id])

    def open_runs(self) -> int:
        return sum(not view.phase.is_terminal for view in self.views().values())

    @rule(index=pick, attempt=st.integers(1, 3))
    def reserve(self, index: int, attempt: int) -> None:
        run_id, slot, _ = self.speaker(index, attempt)
        self.claim(run_id, slot, self.attempt(run_id, slot, attempt))

    @rule(index=pick)
    def reserve_a_slot_that_is_not(self, index: int) -> None:
        run_id, slot, _ = self.speaker(index, 1)
        beyond = MemberId(slot.role, 50)
        self.claim(run_id, beyond, self.attempt(run_id, beyond, 1))

    @rule(index=pick, leave_out=st.integers(0, 8), only_reserve=st.booleans())
    def nearly_all_get_ready(self, index: int, leave_out: int, only_reserve: bool) -> None:
        self.get_ready(self.run_at(index), leave_out, only_reserve)

    def get_ready(self, run: RunView, leave_out: int, only_reserve: bool = False) -> None:
        for number, member in enumerate(run.members):
            if number == leave_out:
                continue
            incarnation = member.incarnation
            if member.phase in (MemberPhase.EXPECTED, MemberPhase.FENCED):
                self.fresh += 1
                incarnation = self.attempt(run.run_id, member.id, self.fresh)
                self.claim(run.run_id, member.id, incarnation)
            if incarnation is not None and not only_reserve:
                self.feed_if_held(events.ProcessReady, run.run_id, member.id, incarnation)

    def feed_if_held(
        self, kind: Callable[..., Any], run_id: RunId, slot: MemberId, incarnation: IncarnationId
    ) -> None:
        if self.references[run_id].holder.get(slot) == incarnation:
            self.feed(kind(run_id, slot, incarnation))

    @rule(
        index=pick,
        attempt=attempts,
        kind=st.sampled_from(
            [events.SessionOpened, events.SessionClosed, events.Heard, events.ProcessReady]
        ),
    )
    def speak(self, index: int, attempt: int, kind: Callable[..., Any]) -> None:
        self.feed(kind(*self.speaker(index, attempt)))

    @rule(index=pick, attempt=attempts, generation=st.sampled_from([1, 1, 1, 0, 2]))
    def enter(self, index: int, attempt: int, generation: int) -> None:
        self.feed(events.MainEntered(*self.speaker(index, attempt), generation))

    @rule(index=pick)
    def all_enter(self, index: int) -> None:
        self.enter_main(self.run_at(index))

    def enter_main(self, run: RunView) -> None:
        for member in run.members:
            if member.phase is MemberPhase.STARTING and member.incarnation is not None:
                who = run.run_id, member.id, member.incarnation
                self.feed(events.MainEntered(*who, run.generation))

    @rule(index=pick)
    def a_whole_generation_starts(self, index: int) -> None:
        run = self.run_at(index)
        self.get_ready(run, leave_out=-1)
        self.enter_main(self.views()[run.run_id])

    @rule(index=pick, attempt=attempts, offset=st.integers(-1, 1), step=st.integers(0, 9))
    def progress(self, index: int, attempt: int, offset: int, step: int) -> None:
        who = self.speaker(index, attempt)
        generation = max(0, self.views()[who[0]].generation + offset)
        self.feed(events.ProgressMade(*who, generation, step))

    @rule(index=pick)
    def a_worker_comes_back_at_its_address(self, index: int) -> None:
        run_id, slot, _ = self.speaker(index, 1)
        known = next(m.endpoint for m in self.views()[run_id].members if m.id == slot)
        self.fresh += 1
        self.claim(run_id, slot, self.attempt(run_id, slot, self.fresh), known)

    @rule(index=pick)
    def all_that_are_told_to_stop_do(self, index: int) -> None:
        run = self.run_at(index)
        if run.phase in (RunPhase.RESTARTING, RunPhase.STOPPING):
            for member in run.members:
                if member.phase.is_live and member.incarnation is not None:
                    who = run.run_id, member.id, member.incarnation
                    report = ExitReport(Cause.STOPPED)
                    self.feed(events.ProcessEnded(*who, run.generation, report))

    @rule(
        index=pick,
        attempt=st.sampled_from([0, 0, 0, 1, 2]),
        generation=st.sampled_from([None, None, None, 0, 1, 2]),
        cause=st.sampled_from([*REPORTED, Cause.COMPLETED, Cause.PEER_LOST, Cause.PEER_LOST]),
    )
    def ends(self, index: int, attempt: int, generation: int | None, cause: Cause) -> None:
        who = self.speaker(index, attempt)
        told = self.views()[who[0]].generation if generation is None else generation
        self.feed(events.ProcessEnded(*who, told, ExitReport(cause)))

    @rule(
        index=pick,
        attempt=st.sampled_from([0, 0, 1]),
        cause=st.sampled_from([*REPORTED, *[Cause.STOPPED, Cause.COMPLETED] * 4]),
    )
    def task_returns(self, index: int, attempt: int, cause: Cause) -> None:
        self.feed(events.TaskReturned(*self.speaker(index, attempt), ExitReport(cause)))

    @rule(index=pick, grace=st.sampled_from([None, 0.0, 1.0, 30.0]), owner=st.booleans())
    def stop(self, index: int, grace: float | None, owner: bool) -> None:
        run_id = self.run_at(index).run_id
        if owner:
            self.feed(events.OwnerLost(run_id, "the owner is gone"))
        else:
            self.feed(events.StopRequested(run_id, "asked", grace))

    @rule(index=pick, state=st.integers(0, 7))
    def report_scheduling(self, index: int, state: int) -> None:
        run_id, slot, _ = self.speaker(index, 1)
        tasks = {slot: TaskState(running=state == 1, failed=state == 0, message="x")}
        self.feed(events.SchedulingReported(run_id, Slots(4, 2), tasks))

    @rule(duration=seconds)
    def coordinator_pauses(self, duration: float) -> None:
        self.now += duration
        self.feed(events.CoordinatorPaused(duration))

    @rule(duration=seconds)
    def silence(self, duration: float) -> None:
        """Also far beyond the deadline: a late tick finds several that have come."""
        self.pass_time(duration)

    @rule()
    def wait_for_the_deadline(self) -> None:
        if self.machine.next_deadline() < NEVER:
            self.pass_time(max(0.0, self.machine.next_deadline() - self.now))

    @rule(duration=st.integers(1, 8), mute=pick)
    def beats(self, duration: int, mute: int) -> None:
        """All that hold a slot beat, but perhaps one."""
        for _ in range(duration):
            self.now += 1.0
            self.beat_all(but=mute % 8)
            self.pass_time(0.0)

    def beat_all(self, but: int = -1) -> None:
        number = 0
        for run in self.views().values():
            for member in run.members:
                number += 1
                watched = member.phase.is_live or member.phase is MemberPhase.LOST
                if watched and member.incarnation is not None and number != but:
                    self.feed(events.Heard(run.run_id, member.id, member.incarnation))

    # -- restarts --------------------------------------------------------------------------

    @rule()
    def is_written(self) -> None:
        self.disk.write(self.machine)
        self.written = copy.deepcopy(self.references)

    @rule(duration=seconds)
    def coordinator_restarts(self, duration: float) -> None:
        """With nothing lost; it is away for a while."""
        self.now += duration
        self.machine = restarted(self.machine, self.disk, self.now)
        self.written = copy.deepcopy(self.references)
        self.come_back()

    @rule(duration=seconds)
    def coordinator_is_killed(self, duration: float) -> None:
        """What it had not written has never been, since nobody was told."""
        self.now += duration
        self.machine = self.disk.start(self.now)
        self.references = copy.deepcopy(self.written)
        self.come_back()

    def come_back(self) -> None:
        for reference in self.references.values():
            reference.restart(self.now)
        assert set(self.references) == set(self.machine.run_ids())

    # -- every wait ends ---------------------------------------------------------------------

    @rule()
    def it_would_end_in_silence(self) -> None:
        """From here, letting only time pass, every run ends within a known time."""
        runs, now = copy.deepcopy(self.machine), self.now
        views = self.views().values()
        is_open = any(view.phase in (RunPhase.FORMING, RunPhase.RUNNING) for view in views)
        may_restart = any(view.spec.restart.is_enabled for view in views)
        bound = now + TIME_TO_END + (RESERVATION_TIMEOUT if is_open else 0.0)
        bound += TIME_TO_RESTART * may_restart
        while (deadline := runs.next_deadline()) < NEVER:
            assert deadline <= bound, "this wait is too long"
            now = max(now, deadline)
            runs.handle(events.TimePassed(), now)
            runs.check_invariants()
        assert all(runs.view(run_id, now).phase.is_terminal for run_id in runs.run_ids())

    def teardown(self) -> None:
        """Nor does it take silence: agents that beat for ever keep only a gang at work."""
        if not self.references:
            return
        self.it_would_end_in_silence()
        until = self.now + RESERVATION_TIMEOUT + TIME_TO_END + TIME_TO_RESTART
        while self.now < until:
            self.now += LIVENESS_TTL - 1.0
            self.beat_all()
            self.pass_time(0.0)
        for run in self.views().values():
            if not run.phase.is_terminal:
                assert run.phase is RunPhase.RUNNING
                phases = {member.phase for member in run.members}
                assert phases <= {MemberPhase.RUNNING, MemberPhase.EXITED}
                assert MemberPhase.RUNNING in phases


TestRuns = pytest.mark.slow(Runs.TestCase)
TestRuns.settings = SETTINGS
