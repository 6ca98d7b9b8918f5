"""A machine, a clock and one run: the words in which the tests of the core are written.

Every event is followed by the machine's own check of its invariants, and by a look whether a
coordinator that is started again now would be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.core import events
from coordinator.core.effects import Effect, SendStart, SendStop
from coordinator.core.machine import Machine
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
    Slots,
    TaskState,
)
from coordinator.core.stall_timeouts import Section
from tests.property.restarts import Disk, restarted

RUN = RunId("run-1")


def slot(text: str | MemberId) -> MemberId:
    return MemberId.parse(text) if isinstance(text, str) else text


def executor(name: str = "host", **changes: Any) -> ExecutorInfo:
    return ExecutorInfo(
        hostname=name, boot_id=f"boot-of-{name}", pid=100, directory=f"/tmp/{name}", **changes
    )


class Scene:
    """One run of ``roles``; slots are written "worker:1", their first attempt is "worker:1/1"."""

    def __init__(self, roles: Roles | None = None, run_id: RunId = RUN, **spec: Any) -> None:
        self.machine = Machine("book", durable=True)
        self.disk = Disk(offset=0.0)
        self.now = 0.0
        self.run_id = run_id
        self.spec = RunSpec(roles=roles or Roles(worker=2), **spec)
        self.attempts: dict[MemberId, IncarnationId] = {}
        self.ports: dict[IncarnationId, int] = {}
        self.handle(events.RunCreated(run_id, self.spec))

    # -- looking ---------------------------------------------------------------------------

    @property
    def view(self) -> RunView:
        return self.machine.view(self.run_id, self.now)

    @property
    def phase(self) -> RunPhase:
        return self.view.phase

    @property
    def slots(self) -> tuple[MemberId, ...]:
        return tuple(member.id for member in self.view.members)

    def member(self, which: str | MemberId) -> MemberView:
        return next(member for member in self.view.members if member.id == slot(which))

    def phases(self) -> dict[str, MemberPhase]:
        return {str(member.id): member.phase for member in self.view.members}

    # -- doing -----------------------------------------------------------------------------

    def handle(self, event: events.Event) -> tuple[Effect, ...]:
        done = self.machine.handle(event, self.now)
        self.machine.check_invariants()
        if self.machine.has_changes:
            restarted(self.machine, self.disk, self.now)
        return done

    def attempt(self, which: str | MemberId) -> IncarnationId:
        """The attempt that speaks for a slot, unless a test says otherwise."""
        return self.attempts.setdefault(slot(which), IncarnationId(f"{which}/1"))

    def reserve(
        self,
        which: str | MemberId,
        attempt: str = "",
        *,
        on: ExecutorInfo | None = None,
        endpoint: Endpoint | None = None,
    ) -> tuple[Effect, ...]:
        incarnation = IncarnationId(attempt or self.attempt(which))
        port = self.ports.setdefault(incarnation, 2000 + len(self.ports))
        return self.handle(
            events.ReservationRequested(
                self.run_id,
                slot(which),
                incarnation,
                on or executor(),
                endpoint or Endpoint("10.0.0.1", port),
            )
        )

    def say(
        self, kind: type[Any], which: str | MemberId, *rest: Any, attempt: str = ""
    ) -> tuple[Effect, ...]:
        """An event of a slot's holder, or of ``attempt``."""
        incarnation = IncarnationId(attempt or self.attempt(which))
        return self.handle(kind(self.run_id, slot(which), incarnation, *rest))

    def ready(self, which: str | MemberId, attempt: str = "") -> tuple[Effect, ...]:
        return self.say(events.ProcessReady, which, attempt=attempt)

    def enter(self, which: str | MemberId) -> tuple[Effect, ...]:
        return self.say(events.MainEntered, which, self.view.generation)

    def beat(self, *which: str | MemberId) -> None:
        for one in which:
            self.say(events.Heard, one)

    def end(
        self,
        which: str | MemberId,
        cause: Cause = Cause.COMPLETED,
        *,
        attempt: str = "",
        generation: int | None = None,
        **facts: Any,
    ) -> tuple[Effect, ...]:
        told = self.view.generation if generation is None else generation
        report = ExitReport(cause, **facts)
        return self.say(events.ProcessEnded, which, told, report, attempt=attempt)

    def task_returns(
        self, which: str | MemberId, cause: Cause, *, attempt: str = "", **facts: Any
    ) -> tuple[Effect, ...]:
        report = ExitReport(cause, **facts)
        return self.say(events.TaskReturned, which, report, attempt=attempt)

    def stop(self, grace: float | None = None, reason: str = "enough") -> tuple[Effect, ...]:
        return self.handle(events.StopRequested(self.run_id, reason, grace))

    def scheduling(
        self,
        slots: Slots | None = None,
        tasks: Mapping[str, TaskState] | None = None,
        restarts: int | None = None,
    ) -> tuple[Effect, ...]:
        """``restarts``: of which the driver knows; by default of all."""
        by_id = {slot(name): state for name, state in (tasks or {}).items()}
        known = self.view.restart_count if restarts is None else restarts
        return self.handle(events.SchedulingReported(self.run_id, slots or Slots(), by_id, known))

    def take_slots(self, *which: str) -> None:
        """Reserved, but not ready."""
        for one in which or self.slots:
            self.reserve(one)

    def form(self, *, enter: bool = True) -> None:
        """The whole gang forms and, by default, enters ``main_fun``."""
        self.take_slots()
        for one in self.slots:
            self.ready(one)
        for one in self.slots if enter else ():
            self.enter(one)

    def form_again(self, *, enter: bool = True) -> None:
        """The next generation, of new attempts."""
        for one in self.slots:
            self.another_attempt(one)
        self.form(enter=enter)

    def another_attempt(self, which: str | MemberId) -> None:
        """From now on it speaks for the slot."""
        number = int(self.attempt(which).rpartition("/")[2]) + 1
        self.attempts[slot(which)] = IncarnationId(f"{which}/{number}")

    def stop_all(self, *but: str) -> None:
        """Everybody that is still there obeys."""
        for one in self.slots:
            if self.member(one).phase.is_live and str(one) not in but:
                self.end(one, Cause.STOPPED)

    def step(
        self, which: str | MemberId, step: int, section: Section = Section.STEP, **metrics: float
    ) -> tuple[Effect, ...]:
        return self.say(events.ProgressMade, which, self.view.generation, step, metrics, section)

    def wait(self, seconds: float, beating: Iterable[str] | None = None) -> list[Effect]:
        """Time goes by from deadline to deadline; ``beating``: who beats (default: all that are
        live, every second)."""
        until = self.now + seconds
        done: list[Effect] = []
        while self.now < until:
            self.now = min(until, self.now + 1.0, max(self.machine.next_deadline(), self.now))
            for member in self.view.members:
                chosen = member.phase.is_live if beating is None else str(member.id) in beating
                if chosen and member.incarnation is not None:
                    self.say(events.Heard, member.id, attempt=member.incarnation)
            done += self.handle(events.TimePassed())
            if self.machine.next_deadline() <= self.now:
                done += self.handle(events.TimePassed())
            assert self.machine.next_deadline() > self.now, "the deadline does not move"
        return done


def told_to_stop(effects: Iterable[Effect]) -> list[str]:
    return [str(effect.member) for effect in effects if isinstance(effect, SendStop)]


def told_to_start(effects: Iterable[Effect]) -> list[str]:
    return [str(effect.member) for effect in effects if isinstance(effect, SendStart)]
