"""One slot of a run: who holds it and where it stands. Changed by ``run`` alone."""

from __future__ import annotations

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
from coordinator.core.transitions import MemberTrigger, next_member_phase


class Member:
    """Mutable state of one slot.

    ``incarnation`` is the task attempt that holds the slot, or held it last, ``past`` are those
    before it. ``last_heard_at`` starts at the reservation. ``stop_sent``: the holder was told to
    stop, so what happens to it afterwards is our doing.
    """

    __slots__ = (
        "endpoint",
        "executor",
        "exit",
        "id",
        "incarnation",
        "is_ready",
        "last_heard_at",
        "metrics",
        "past",
        "phase",
        "phase_at",
        "step",
        "stop_sent",
        "task",
    )

    def __init__(self, member_id: MemberId, now: float) -> None:
        self.id = member_id
        self.phase = MemberPhase.EXPECTED
        self.phase_at = now
        self.last_heard_at = now
        self.incarnation: IncarnationId | None = None
        self.past: set[IncarnationId] = set()
        self.executor: ExecutorInfo | None = None
        self.endpoint: Endpoint | None = None
        self.exit: ExitReport | None = None
        self.is_ready = False
        self.stop_sent = False
        self.task = TaskState()
        self.step = 0
        self.metrics: dict[str, float] = {}

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
            self.past.add(self.incarnation)
        self.incarnation, self.executor, self.endpoint = incarnation, executor, endpoint
        self.exit = None
        self.is_ready = self.stop_sent = False
        self.step, self.metrics = 0, {}
        self.last_heard_at = now

    def has_been_held_by(self, incarnation: IncarnationId) -> bool:
        """True for an attempt that holds the slot or once did."""
        return incarnation == self.incarnation or incarnation in self.past

    @property
    def is_watched(self) -> bool:
        """True while silence has consequences."""
        return self.phase.is_live or self.phase is MemberPhase.LOST

    @property
    def is_settled(self) -> bool:
        """True when nothing that this member does can change the outcome any more."""
        return self.phase.has_ended or self.phase is MemberPhase.LOST

    @property
    def cause(self) -> Cause | None:
        """Why it ended; None while it has not."""
        return self.exit.cause if self.exit is not None and self.is_settled else None

    def view(self, gpus: tuple[str, ...] = (), obstacles: tuple[str, ...] = ()) -> MemberView:
        """A frozen copy, with what was granted to it and what is in the way of more."""
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
            gpus=gpus,
            gpu_obstacles=obstacles,
        )
