"""The vocabulary: ids, roles, phases, causes, and what a run and its members look like.

Values only. Instants (``*_at``) are seconds on the clock of whoever passes them, durations are
float seconds.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, NewType

from coordinator.core.causes import Cause as Cause  # noqa: PLC0414 part of the vocabulary
from coordinator.core.errors import InvalidRun
from coordinator.core.gpu import GpuSight
from coordinator.core.loopback import is_loopback
from coordinator.core.policy import NO_RESTARTS, RestartPolicy
from coordinator.core.stall_timeouts import DEFAULT_STALL_TIMEOUTS, Section, StallTimeouts

VERSION = "0.1.0"
"""Of tflease; driver and executors must have the same."""

RunId = NewType("RunId", str)
IncarnationId = NewType("IncarnationId", str)
"""One Spark task attempt that claims a slot; unique for ever."""


class Role(enum.Enum):
    """What a member does in the TensorFlow cluster; values are TensorFlow's job names."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"
    EVALUATOR = "evaluator"


class RunPhase(enum.Enum):
    """Where a run stands."""

    FORMING = "forming"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED)


class MemberPhase(enum.Enum):
    """Where a member stands; see ``transitions`` for what may follow what."""

    EXPECTED = "expected"
    RESERVED = "reserved"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    FENCED = "fenced"
    STOPPED = "stopped"

    @property
    def is_live(self) -> bool:
        """True while an agent holds the slot and may have a process."""
        return self.value in ("reserved", "ready", "starting", "running")

    @property
    def has_ended(self) -> bool:
        """True when nothing more is waited for: proven gone, never begun, or fenced."""
        return self in (MemberPhase.EXITED, MemberPhase.STOPPED, MemberPhase.FENCED)


class Proof(enum.Enum):
    """How sure it is that nothing of a member is left."""

    NONE = "none"
    SWEEP = "sweep"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class MemberId:
    """One slot of the cluster spec, stable over the run."""

    role: Role
    index: int

    def __str__(self) -> str:
        return f"{self.role.value}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> MemberId:
        """``"worker:1"`` -> ``MemberId(Role.WORKER, 1)``. Raises ValueError."""
        role, _, index = text.partition(":")
        return cls(Role(role), int(index))


@dataclass(frozen=True, slots=True)
class Roles:
    """A number for each role: members of a run, or GPUs for each member of a role.

    Raises InvalidRun when a number is negative or not a whole number.
    """

    chief: int = 0
    worker: int = 0
    ps: int = 0
    evaluator: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            count = getattr(self, item.name)
            if isinstance(count, bool) or not isinstance(count, int):
                raise InvalidRun(f"{item.name}={count!r}: the number of members must be an int")
            if count < 0:
                raise InvalidRun(f"{item.name}={count}: a role cannot have less than 0 members")

    @classmethod
    def of(cls, value: Roles | Mapping[str, int]) -> Roles:
        """Accepts a mapping too. Raises InvalidRun when it names a role that does not exist."""
        if isinstance(value, Roles):
            return value
        if not isinstance(value, Mapping):
            raise InvalidRun(f"roles must be Roles(...) or a mapping, not {value!r}")
        known = [item.name for item in fields(cls)]
        for name in value.keys() - set(known):
            raise InvalidRun(f"unknown role {name!r}: roles are {', '.join(known)}")
        return cls(**value)

    def count(self, role: Role) -> int:
        """The number for one role."""
        return int(getattr(self, role.value))

    @property
    def total(self) -> int:
        """The sum over all roles."""
        return sum(self.count(role) for role in Role)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a member is reached by the others' TensorFlow and, unless 0, by Spark's feeders."""

    host: str
    port: int
    feed_port: int = 0

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class ExecutorInfo:
    """What an agent tells of the executor it runs on. ``leftovers``: what earlier members had left
    behind there, and what became of it, a sentence each."""

    hostname: str
    boot_id: str
    pid: int
    executor_id: str = ""
    python_version: str = ""
    tflease_version: str = ""
    directory: str = ""
    leftovers: tuple[str, ...] = ()

    def __str__(self) -> str:
        executor = f" (executor {self.executor_id})" if self.executor_id else ""
        return f"{self.hostname}{executor}"


DEFAULT_GRACE: Mapping[Role, float] = {
    Role.CHIEF: 5.0,
    Role.WORKER: 5.0,
    Role.EVALUATOR: 5.0,
    Role.PS: 0.0,
}
"""Seconds a member may take to leave after it was told to stop. A parameter server has nothing
to save, and is stopped after those that have."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is; fixed when it is created. Durations in seconds.

    ``completion``: the roles whose members must all finish for the run to be complete; empty
    means the default rule (``completion.default_roles``). ``owner_timeout``: how long the owner may
    be away before the run is cancelled; None where the coordinator watches it by itself. ``gpus``:
    for each member of a role. ``restart``: what becomes of failures. ``stall``: how long a member
    may be without progress.
    """

    roles: Roles
    name: str = "tflease"
    reservation_timeout: float = 600.0
    liveness_ttl: float = 15.0
    fence_timeout: float = 120.0
    beat_interval: float = 5.0
    grace: Mapping[Role, float] = field(default_factory=lambda: dict(DEFAULT_GRACE))
    completion: frozenset[Role] = frozenset()
    python_version: str = ""
    tflease_version: str = ""
    owner_timeout: float | None = None
    gpus: Roles = Roles()
    restart: RestartPolicy = NO_RESTARTS
    stall: StallTimeouts = DEFAULT_STALL_TIMEOUTS

    def __post_init__(self) -> None:
        if self.roles.total == 0:
            raise InvalidRun("roles has no members: ask for at least Roles(worker=1)")
        if self.roles.total > MAX_MEMBERS:
            raise InvalidRun(f"{self.roles.total} members: a run has at most {MAX_MEMBERS}")
        if self.roles.chief > 1:
            raise InvalidRun(f"chief={self.roles.chief}: TensorFlow allows one chief at most")
        if self.roles.chief + self.roles.worker == 0:
            raise InvalidRun("nobody trains: ask for a chief or at least one worker")
        for name in ("reservation_timeout", "liveness_ttl", "fence_timeout", "beat_interval"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidRun(f"{name}={getattr(self, name)}: must be more than 0 seconds")
        if self.owner_timeout is not None and not 0 < self.owner_timeout < float("inf"):
            raise InvalidRun(f"owner_timeout={self.owner_timeout}: must be more than 0 seconds")
        if self.beat_interval >= self.liveness_ttl:
            raise InvalidRun("beat_interval must be shorter than liveness_ttl")
        if self.liveness_ttl > self.fence_timeout:
            raise InvalidRun("liveness_ttl must not be longer than fence_timeout")
        for role, seconds in self.grace.items():
            if not 0 <= seconds <= MAX_GRACE:
                raise InvalidRun(f"grace of {role.value}: {seconds} is not in 0..{MAX_GRACE} s")
        for role in Role:
            if self.gpus.count(role) and not self.roles.count(role):
                raise InvalidRun(f"gpus names {role.value}, which has no members")
        for role in self.completion:
            if self.roles.count(role) == 0:
                raise InvalidRun(f"completion names {role.value}, which has no members")

    def grace_of(self, role: Role) -> float:
        """Seconds a member of the role may take to leave."""
        return self.grace.get(role, DEFAULT_GRACE[role])


MAX_MEMBERS = 10_000
"""What one coordinator is built for; a number beyond it is a slip or an attack."""

LAST_GENERATION = "the members of the last generation"
"""For whom an attempt stands by while a gang restarts."""

MAX_GRACE = 600.0
"""Seconds; a longer grace would hold a slot and a GPU that Spark believes to be free."""

ClusterSpec = Mapping[str, tuple[str, ...]]
"""TensorFlow's own form: job name -> "host:port" by index."""


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a member's process ended, as its sentinel, bootstrap and agent saw it. ``gpus``: how its
    GPUs looked to the agent after that."""

    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    killed_by_us: bool = False
    reason: str = ""
    exception_type: str = ""
    message: str = ""
    traceback: str = ""
    log_tail: str = ""
    proof: Proof = Proof.NONE
    survivors: tuple[str, ...] = ()
    max_rss_bytes: int = 0
    stop_seconds: float = 0.0
    gpus: tuple[GpuSight, ...] = ()

    def to_json(self) -> str:
        """The text that ``from_json`` reads."""
        return json.dumps({**asdict(self), "cause": self.cause.value, "proof": self.proof.value})

    @classmethod
    def from_json(cls, text: str) -> ExitReport:
        """Raises ValueError for anything but an exit report."""
        try:
            values = json.loads(text)
            values["cause"] = Cause(values["cause"])
            values["proof"] = Proof(values["proof"])
            values["survivors"] = tuple(values["survivors"])
            values["gpus"] = tuple(map(GpuSight.of, values["gpus"]))
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an exit report: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: the first cause, and what else failed with it."""

    cause: Cause
    summary: str
    member: MemberId | None = None
    exit: ExitReport | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """A failure that was answered with a restart. ``at``: when it was decided, Unix seconds for
    others. ``generation``: the one that it ended. ``member``: who is to blame, and ``host`` where
    it was; ``step``: the highest that any member had told. ``alone``: only that member, not the
    gang."""

    at: Annotated[float, "instant"]
    generation: int
    cause: Cause
    summary: str
    member: MemberId | None = None
    host: str = ""
    step: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class TaskState:
    """What Spark says of a member's task. ``message``: why it failed, or why it may not have been
    started."""

    running: bool = False
    failed: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Slots:
    """Spark's task slots for the application. ``total`` 0 and ``busy`` -1: unknown."""

    total: int = 0
    busy: int = -1


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member as others see it. ``gpus``: the UUIDs that were granted to it; ``gpu_obstacles``:
    who or what is in the way of those that it waits for, a sentence each."""

    id: MemberId
    phase: MemberPhase
    phase_at: float
    incarnation: IncarnationId | None = None
    executor: ExecutorInfo | None = None
    endpoint: Endpoint | None = None
    exit: ExitReport | None = None
    task: TaskState = TaskState()
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    gpu_obstacles: tuple[str, ...] = ()
    section: Section = Section.START


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as others see it. ``settled``: the outcome cannot change any more. ``restarts``: the
    latest, and ``restart_count`` all of them; ``restart_at``: when the next generation may form,
    while that is put off."""

    run_id: RunId
    spec: RunSpec
    phase: RunPhase
    generation: int
    members: tuple[MemberView, ...]
    created_at: float
    revision: int
    failure: Failure | None = None
    stop_reason: str = ""
    settled: bool = False
    slots: Slots = Slots()
    diagnosis: tuple[str, ...] = ()
    restarts: tuple[Restart, ...] = ()
    restart_count: int = 0
    restart_at: float | None = None
