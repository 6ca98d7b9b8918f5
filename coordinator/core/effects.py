"""What the core wants done: one frozen record per action. The engine interprets them."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.model import ClusterSpec, IncarnationId, MemberId, RunId


@dataclass(frozen=True, slots=True)
class Granted:
    """Answer to a reservation: the slot is this incarnation's."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId


@dataclass(frozen=True, slots=True)
class StandBy:
    """Answer to a reservation: another incarnation holds the slot; ask again in ``delay`` s."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    holder: str
    delay: float


@dataclass(frozen=True, slots=True)
class SendStart:
    """Tell a member to start. The spec is one object for all members of a generation."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    generation: int
    spec: ClusterSpec


@dataclass(frozen=True, slots=True)
class SendStop:
    """Tell a member to stop; ``grace`` in seconds."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    generation: int
    reason: str
    grace: float


@dataclass(frozen=True, slots=True)
class RunChanged:
    """Whoever watches the run should look again."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence for the coordinator's log."""

    run_id: RunId
    text: str


Effect = Granted | StandBy | SendStart | SendStop | RunChanged | Noted
