"""Hosts as they really are: who uses which GPU, who has its claim, and what agents do about it.

The simplest thing that behaves like them. It knows nothing of the core but its events and
effects; a GPU is what its set of users and the holder of its claim say it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.core import effects, events
from coordinator.core.gpu import GpuOffer, GpuSight, LeaseToken
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    RunId,
)

FENCE_TIMEOUT = 120.0


@dataclass(eq=False)
class User:
    """Some process. ``is_ours``: it belongs to a member, or is what one has left behind."""

    name: str
    is_ours: bool


@dataclass(eq=False)
class Gpu:
    """``claim``: who holds the lock of its claim file. ``fence``: the youngest token or inspection
    that the file remembers."""

    uuid: str
    users: set[User] = field(default_factory=set)
    claim: object = None
    fence: int = 0


class Host:
    def __init__(self, name: str, gpus: int) -> None:
        self.name = name
        self.boots = 0
        self.gpus = {f"{name}-{index}": Gpu(f"{name}-{index}") for index in range(gpus)}

    @property
    def boot_id(self) -> str:
        return f"boot {self.boots} of {self.name}"

    def sight(self, uuid: str) -> GpuSight:
        gpu = self.gpus[uuid]
        is_free = gpu.claim is None and not gpu.users
        return GpuSight(uuid, is_free, holder="" if is_free else "somebody")

    def restart(self) -> None:
        """Claim files live in a folder for temporary things: they are gone as well."""
        self.boots += 1
        for gpu in self.gpus.values():
            gpu.users, gpu.claim, gpu.fence = set(), None, 0


class Agent:
    """One task attempt with its sentinel and its member's process, on one host."""

    def __init__(
        self,
        run_id: RunId,
        slot: MemberId,
        incarnation: str,
        host: Host,
        count: int,
        clock: Callable[[], float],
    ) -> None:
        self.who = (run_id, slot, IncarnationId(incarnation))
        self.host = host
        self.count = count  # of GPUs that it needs
        self.boot_id = host.boot_id
        self.is_alive = True
        self.is_admitted = False  # its reservation was answered
        self.is_paused = False
        self.must_stop = False
        self.clock = clock
        self.acknowledged_at = clock()  # when that was sent which was acknowledged last
        self.claims: dict[str, LeaseToken] = {}
        self.process: User | None = None
        self.generation = 0
        self.number = 0
        self.looking: effects.InspectGpus | None = None
        self.report: events.ProcessEnded | None = None
        self.up: list[tuple[float, events.Event]] = []  # with when it was sent
        self.said: list[tuple[float, events.Event]] = []  # all of it
        self.down: list[effects.Command] = []

    def reservation(self) -> events.ReservationRequested:
        executor = ExecutorInfo(self.host.name, self.boot_id, 1)
        port = 2000 + int(self.who[2].rpartition("/")[2])  # its own for each attempt
        offer = GpuOffer(tuple(map(self.host.sight, self.host.gpus)))
        endpoint = Endpoint(f"10.0.0.{ord(self.host.name)}", port)
        return events.ReservationRequested(*self.who, executor, endpoint, offer)

    @property
    def is_gone(self) -> bool:
        return not self.is_alive or self.report is not None

    def say(self, event: events.Event) -> None:
        self.up.append((self.clock(), event))
        self.said.append(self.up[-1])

    def beat(self) -> None:
        if self.is_alive and not self.is_paused and self.report is None:
            self.say(events.Heard(*self.who, leases=tuple(self.claims.values())))

    def obey(self, command: effects.Command) -> None:
        if self.is_gone or self.is_paused:
            return
        match command:
            case effects.ClaimGpus(number=number, grants=grants):
                if number >= self.number and self.process is None:
                    self.number, self.looking = number, None
                    self._claim(number, dict(grants))
            case effects.InspectGpus():
                self.looking = command
                self.look()
            case effects.SendStart(generation=generation):
                self._start(generation)
            case effects.SendStop():
                self.end(Cause.STOPPED)

    def _claim(self, number: int, grants: dict[str, LeaseToken]) -> None:
        for uuid in [uuid for uuid, token in self.claims.items() if grants.get(uuid) != token]:
            self._let_go(uuid)
        refused = [uuid for uuid, token in grants.items() if not self._take(uuid, token)]
        if refused:
            for uuid in list(self.claims):
                self._let_go(uuid)
        sights = tuple(map(self.host.sight, refused))
        self.say(events.GpusClaimed(*self.who, number, sights))

    def _take(self, uuid: str, token: LeaseToken) -> bool:
        gpu = self.host.gpus[uuid]
        if self.claims.get(uuid) == token:
            return True
        if gpu.claim is not None or gpu.users or token.number <= gpu.fence:
            return False
        gpu.claim, gpu.fence = self, token.number
        self.claims[uuid] = token
        return True

    def _let_go(self, uuid: str) -> None:
        del self.claims[uuid]
        self.host.gpus[uuid].claim = None

    def look(self) -> None:
        if self.looking is None or self.is_gone or self.is_paused:
            return
        sights = tuple(map(self.host.sight, self.looking.uuids))
        for sight in sights:
            if sight.is_free:
                gpu = self.host.gpus[sight.uuid]
                gpu.fence = max(gpu.fence, self.looking.number)
        self.say(events.GpusInspected(*self.who, self.looking.number, sights))

    def _start(self, generation: int) -> None:
        if self.process is not None or self.generation:
            return
        self.generation = generation
        if len(self.claims) != self.count:
            self.end(Cause.TASK_FAILED)
            return
        self.looking = None
        self.process = User(str(self.who), is_ours=True)
        for uuid in self.claims:
            gpu = self.host.gpus[uuid]
            others = [user.name for user in gpu.users if user.is_ours]
            assert not others, f"{self.process.name} and {others} use GPU {uuid}"
            gpu.users.add(self.process)
            gpu.claim = self.process
        self.say(events.MainEntered(*self.who, generation))

    def end(self, cause: Cause, leftover: User | None = None, *, looks: bool = True) -> None:
        """Its process ends, perhaps leaving another behind that has inherited everything."""
        if self.is_gone:
            return
        held = list(self.claims)
        self._processes_end(leftover)
        sights = tuple(map(self.host.sight, held)) if looks else ()
        report = ExitReport(cause, gpus=sights)
        self.report = events.ProcessEnded(*self.who, self.generation, report)
        self.say(self.report)

    def crash(self, leftover: User | None = None) -> None:
        """All of it is gone without a word, but perhaps a grandchild."""
        if self.is_alive:
            self._processes_end(leftover)
            self.is_alive = False

    def _processes_end(self, leftover: User | None) -> None:
        mine = self.process
        for uuid in self.claims:
            gpu = self.host.gpus[uuid]
            if mine is not None:
                gpu.users.discard(mine)
            if gpu.claim in (self, mine):
                gpu.claim = None
            if mine is not None and leftover is not None:
                gpu.users.add(leftover)
                gpu.claim = leftover
        self.claims, self.process = {}, None

    def look_at_the_clock(self) -> None:
        """Before anything else it does after a pause."""
        late = self.clock() - self.acknowledged_at >= FENCE_TIMEOUT
        if not self.is_paused and (self.must_stop or late):
            self.end(Cause.STOPPED)

    def host_went(self) -> None:
        self.is_alive = False
        self.claims, self.process = {}, None
