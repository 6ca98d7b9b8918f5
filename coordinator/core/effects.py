"""What the core wants done: one frozen record per action. The engine interprets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.core.gpu import LeaseToken
from coordinator.core.model import ClusterSpec, IncarnationId, MemberId, Restart, RunId


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
    """Tell a member to stop; ``grace`` in seconds. ``again``: its task may stay, another process
    is likely to be started there."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    generation: int
    reason: str
    grace: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class DumpStack:
    """Ask a member's agent where the threads of its process stand."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId


@dataclass(frozen=True, slots=True)
class InspectGpus:
    """Tell a member's agent to look whether these GPUs are free, until they are or another command
    comes. ``number`` is younger than all tokens of ``coordinator_id`` up to now."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    number: int
    coordinator_id: str
    uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimGpus:
    """Tell a member's agent to claim exactly these GPUs on its host (token by UUID), and to let go
    of all others. ``number`` tells the answers to two such commands apart."""

    run_id: RunId
    member: MemberId
    incarnation: IncarnationId
    number: int
    grants: Mapping[str, LeaseToken]


@dataclass(frozen=True, slots=True)
class RunChanged:
    """Whoever watches the run should look again."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence for the coordinator's log. ``run_id`` None: about no run in particular."""

    run_id: RunId | None
    text: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """A failure is answered with a restart."""

    run_id: RunId
    restart: Restart


@dataclass(frozen=True, slots=True)
class GpusGranted:
    """A request for GPUs that no run has made has all of them."""

    request_id: str


@dataclass(frozen=True, slots=True)
class GpuLeased:
    """A GPU has a holder: ``who`` of ``holder``. ``run_id`` None: that is no run."""

    run_id: RunId | None
    uuid: str
    hostname: str
    token: LeaseToken
    holder: str
    who: str


@dataclass(frozen=True, slots=True)
class GpuFreed:
    """A GPU is free again, and its lease is over."""

    run_id: RunId | None
    uuid: str
    hostname: str
    token: LeaseToken


@dataclass(frozen=True, slots=True)
class GpusRefused:
    """A request for GPUs that no run has made was not granted within its patience."""

    request_id: str
    why: tuple[str, ...]


Command = SendStart | SendStop | DumpStack | InspectGpus | ClaimGpus
"""What goes to a member's agent, by way of its session."""

Effect = (
    Granted
    | StandBy
    | Command
    | RunChanged
    | Restarted
    | Noted
    | GpusGranted
    | GpusRefused
    | GpuLeased
    | GpuFreed
)
