"""The vocabulary of GPUs: who they are, how they look on their host, and who may use them.

Values only. A GPU is its UUID (``GPU-...`` or ``MIG-...``) and nothing else: indexes differ between
containers of one host, and host names between its pods.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class LeaseToken:
    """Fences: of two tokens of one coordinator the larger number is the newer grant. Tokens of two
    coordinators are never compared: between them the claim on the host decides."""

    coordinator_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.coordinator_id}/{self.number}"


@dataclass(frozen=True, slots=True)
class GpuSight:
    """A GPU as an agent on its host saw it, just now.

    ``is_free``: nobody holds its claim, no process of a member that is gone is left, and its memory
    is as it was before anybody used it. Otherwise ``holder`` says in words who or what is there,
    and ``pids`` who that is, where it is known (inside a container NVML's are the host's).
    Memory in bytes; 0: not told.
    """

    uuid: str
    is_free: bool
    index: int = -1
    name: str = ""
    memory_total: int = 0
    memory_used: int = 0
    holder: str = ""
    pids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.uuid} ({self.name})" if self.name else self.uuid

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> GpuSight:
        """From plain values, as JSON has them. Raises KeyError, TypeError."""
        return cls(**{**values, "pids": tuple(values["pids"])})


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """What a member can have where it is. ``is_assigned``: Spark has given exactly these to its
    task, so that no other will do; else any of them will. ``problem``: why there are none, or not
    as many as Spark has assigned."""

    gpus: tuple[GpuSight, ...] = ()
    is_assigned: bool = False
    problem: str = ""


NO_GPUS = GpuOffer()


class LeaseState(enum.Enum):
    """Where a GPU stands in the coordinator's book."""

    FREE = "free"
    HELD = "held"
    RELEASING = "releasing"
    UNPROVEN = "unproven"
    QUARANTINED = "quarantined"

    @property
    def is_live(self) -> bool:
        """True while its holder may use it."""
        return self in (LeaseState.HELD, LeaseState.RELEASING)


@dataclass(frozen=True, slots=True)
class Want:
    """What one holder of a gang needs: ``count`` of ``uuids``. ``who``: its name in the request."""

    who: str
    uuids: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a gang needs, all of it or nothing. ``request_id``: chosen by the client; the same again
    is the same request. ``holder``: for people, "run 12ab (mnist)". Durations in seconds:
    ``ttl``: of silence after which a lease lapses; ``patience``: how long to wait in the queue.
    ``since``: its place in the queue is that of a request of then; None: of now."""

    request_id: str
    holder: str
    wants: tuple[Want, ...]
    ttl: float
    patience: float
    since: float | None = None


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One GPU of the book as others see it. Instants are the caller's clock, as in ``model``.

    ``who`` and ``holder`` are those of the lease, or of the last one where the GPU is not proven
    free; ``reason`` and ``pids`` say what is in the way.
    """

    uuid: str
    state: LeaseState
    hostname: str
    boot_id: str
    name: str = ""
    token: LeaseToken | None = None
    holder: str = ""
    who: str = ""
    since: float = 0.0
    expires_at: float | None = None
    reason: str = ""
    pids: tuple[int, ...] = ()
