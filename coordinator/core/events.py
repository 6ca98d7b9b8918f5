"""What can happen to the coordinator: one class per outcome.

``handle(event, now)`` takes these. An event that is refused raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.core.gpu import NO_GPUS, GpuOffer, GpuSight, LeaseToken
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    RunId,
    RunSpec,
    Slots,
    TaskState,
)
from coordinator.core.stall_timeouts import Section


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A client asked for a run; the caller chose an id that was never used. ``request_id``: the
    client's, by which it may ask again; empty: it will not."""

    run_id: RunId
    spec: RunSpec
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the run to end. ``grace`` (seconds) can only shorten each role's."""

    run_id: RunId
    reason: str
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """The process that owns the run is gone."""

    run_id: RunId
    reason: str


@dataclass(frozen=True, slots=True)
class OwnerCame:
    """A session of the run's owner has opened."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class OwnerLeft:
    """A session of the run's owner has closed; it may come back."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class SchedulingReported:
    """What Spark says of slots and of members' tasks. ``restarts``: how many the driver knew of."""

    run_id: RunId
    slots: Slots
    tasks: Mapping[MemberId, TaskState] = field(default_factory=dict)
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class TaskReturned:
    """A member's Spark task ended for good and brought its sentinel's proof along."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    report: ExitReport


@dataclass(frozen=True, slots=True)
class ReservationRequested:
    """An agent claims a slot."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    executor: ExecutorInfo
    endpoint: Endpoint
    gpus: GpuOffer = NO_GPUS


@dataclass(frozen=True, slots=True)
class _FromMember:
    run_id: RunId
    member: MemberId
    incarnation: IncarnationId


@dataclass(frozen=True, slots=True)
class SessionOpened(_FromMember):
    """An agent attends."""


@dataclass(frozen=True, slots=True)
class SessionClosed(_FromMember):
    """An agent's stream ended; that alone decides nothing."""


@dataclass(frozen=True, slots=True)
class Heard(_FromMember):
    """A beat. ``leases``: of the GPUs that it holds, to be renewed."""

    leases: tuple[LeaseToken, ...] = ()


@dataclass(frozen=True, slots=True)
class GpusInspected(_FromMember):
    """The answer to ``InspectGpus``."""

    number: int
    sights: tuple[GpuSight, ...]


@dataclass(frozen=True, slots=True)
class GpusClaimed(_FromMember):
    """The answer to ``ClaimGpus``: all are claimed but the ``refused``, which somebody else has."""

    number: int
    refused: tuple[GpuSight, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessReady(_FromMember):
    """The member's process has imported what it was told to."""


@dataclass(frozen=True, slots=True)
class MainEntered(_FromMember):
    """The user's function was entered."""

    generation: int


@dataclass(frozen=True, slots=True)
class ProgressMade(_FromMember):
    """The user's function told how far it is."""

    generation: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    section: Section = Section.STEP


@dataclass(frozen=True, slots=True)
class StackDumped(_FromMember):
    """The answer to ``DumpStack``: where the threads of its process stand, its main thread first.
    Empty: that could not be had."""

    text: str


@dataclass(frozen=True, slots=True)
class ProcessEnded(_FromMember):
    """The member's process ended, or it never had one and its sentinel is leaving."""

    generation: int
    report: ExitReport


@dataclass(frozen=True, slots=True)
class CoordinatorPaused:
    """The coordinator itself did not run for so many seconds: nobody else is to blame."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline that ``next_deadline`` told has come (or time simply went by)."""


MemberEvent = (
    SessionOpened
    | SessionClosed
    | Heard
    | ProcessReady
    | MainEntered
    | ProgressMade
    | ProcessEnded
    | StackDumped
    | GpusInspected
    | GpusClaimed
)

RunEvent = (
    StopRequested
    | OwnerLost
    | OwnerCame
    | OwnerLeft
    | SchedulingReported
    | TaskReturned
    | ReservationRequested
    | MemberEvent
)
"""Of a run that there is."""

Event = RunCreated | RunEvent | CoordinatorPaused | TimePassed
