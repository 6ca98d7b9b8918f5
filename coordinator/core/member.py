"""One slot of a run: who holds it and where it stands. Changed by ``run`` and its parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from coordinator.core.durable import Ledger, Tracked
from coordinator.core.durable_values import Instant, codec
from coordinator.core.effects import ClaimGpus, InspectGpus
from coordinator.core.gpu import LeaseToken
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    TaskState,
)
from coordinator.core.stall_timeouts import Section
from coordinator.core.transitions import MemberTrigger, next_member_phase


class Member(Tracked):
    """Mutable state of one slot.

    ``incarnation`` is the task attempt that holds the slot, or held it last, ``past`` are those
    before it. ``last_heard_at`` starts at the reservation. ``stop_sent``: the holder was told to
    stop, so what happens to it afterwards is our doing.

    Of its GPUs (``gang_leases``): ``offer`` are those that it can have where it is, ``granted``
    those that it has, ``is_claiming`` until its agent has claimed them on its host, ``commands``
    what its agent was told of them and still counts.

    ``progress_at``: when it made progress last, ``section``: what it says that it is doing,
    ``stack``: where it stood when it was asked last.
    """

    __slots__ = (
        "commands",
        "endpoint",
        "executor",
        "exit",
        "granted",
        "id",
        "incarnation",
        "is_claiming",
        "is_ready",
        "last_heard_at",
        "metrics",
        "offer",
        "past",
        "phase",
        "phase_at",
        "progress_at",
        "section",
        "stack",
        "step",
        "stop_sent",
        "task",
    )

    DURABLE: ClassVar = {
        "phase": codec(MemberPhase),
        "phase_at": codec(Instant),
        "incarnation": codec(IncarnationId | None),
        "past": codec(frozenset[IncarnationId]),
        "executor": codec(ExecutorInfo | None),
        "endpoint": codec(Endpoint | None),
        "exit": codec(ExitReport | None),
        "is_ready": codec(bool),
        "stop_sent": codec(bool),
        "task": codec(TaskState),
        "step": codec(int),
        "metrics": codec(Mapping[str, float]),
        "section": codec(Section),
        "offer": codec(tuple[str, ...]),
        "granted": codec(Mapping[str, LeaseToken]),
        "is_claiming": codec(bool),
        "commands": codec(tuple[ClaimGpus | InspectGpus, ...]),
    }

    def __init__(
        self, member_id: MemberId, now: float, run_id: str = "", ledger: Ledger | None = None
    ) -> None:
        self.track(ledger, "member", f"{run_id}/{member_id}")
        self.id = member_id
        self.phase = MemberPhase.EXPECTED
        self.phase_at = now
        self.last_heard_at = now
        self.incarnation: IncarnationId | None = None
        self.past: frozenset[IncarnationId] = frozenset()
        self.executor: ExecutorInfo | None = None
        self.endpoint: Endpoint | None = None
        self.exit: ExitReport | None = None
        self.is_ready = False
        self.stop_sent = False
        self.task = TaskState()
        self.step = 0
        self.metrics: Mapping[str, float] = {}
        self.section = Section.START
        self.progress_at = now
        self.stack = ""
        self.offer: tuple[str, ...] = ()
        self.granted: Mapping[str, LeaseToken] = {}
        self.is_claiming = False
        self.commands: tuple[ClaimGpus | InspectGpus, ...] = ()

    def move(self, trigger: MemberTrigger, now: float) -> None:
        """Follows the table."""
        self.phase = next_member_phase(self.phase, trigger)
        self.phase_at = now

    def reserve(
        self, incarnation: IncarnationId, executor: ExecutorInfo, endpoint: Endpoint, now: float
    ) -> None:
        """A new incarnation takes the slot; the one before is proven gone or fenced."""
        self.move(MemberTrigger.RESERVE, now)
        if self.incarnation is not None:
            self.past |= {self.incarnation}
        self.incarnation, self.executor, self.endpoint = incarnation, executor, endpoint
        self.exit = None
        self.is_ready = self.stop_sent = False
        self.step, self.metrics = 0, {}
        self.section, self.progress_at, self.stack = Section.START, now, ""
        self.last_heard_at = now

    def renew(self, now: float) -> None:
        """It is to start again: another incarnation will take the slot. How the last one ended is
        in the history of the run, and no part of the next verdict."""
        self.move(MemberTrigger.RENEW, now)
        self.exit = None
        self.task = TaskState()

    def has_been_held_by(self, incarnation: IncarnationId) -> bool:
        """True for an attempt that holds the slot or once did."""
        return incarnation == self.incarnation or incarnation in self.past

    @property
    def is_watched(self) -> bool:
        """True while silence has consequences."""
        return self.phase.is_live or self.phase is MemberPhase.LOST

    @property
    def is_rejoining(self) -> bool:
        """True of one that is not there yet; in a gang at work it starts again alone."""
        return self.phase in (MemberPhase.EXPECTED, MemberPhase.RESERVED, MemberPhase.READY)

    @property
    def is_settled(self) -> bool:
        """True when nothing that this member does can change the outcome any more."""
        return self.phase.has_ended or self.phase is MemberPhase.LOST

    @property
    def cause(self) -> Cause | None:
        """Why it ended; None while it has not."""
        return self.exit.cause if self.exit is not None and self.is_settled else None

    def view(self, obstacles: tuple[str, ...] = ()) -> MemberView:
        """A frozen copy, with what is in the way of GPUs that it waits for."""
        return MemberView(
            id=self.id,
            phase=self.phase,
            phase_at=self.phase_at,
            incarnation=self.incarnation,
            executor=self.executor,
            endpoint=self.endpoint,
            exit=self.exit,
            task=self.task,
            step=self.step,
            metrics=dict(self.metrics),
            section=self.section,
            gpus=tuple(self.granted),
            gpu_obstacles=obstacles,
        )
