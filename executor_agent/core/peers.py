"""Whom a member has to reach, and what is said when it cannot (R9). PURE.

Every member checks the members that follow it in the order chief, ps, worker, the last one followed
by the first. With no more than ``MAX_CHECKED`` others that is all of them, in both directions. In a
larger cluster any two members that are not further apart than that are checked by the earlier one:
a firewall or a wrong network is seen long before every pair has been tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from executor_agent.core.tf_config import CHIEF, PS, WORKER, ClusterSpec, training_cluster

MAX_CHECKED = 64
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Peer:
    """Another member: "worker:1", and where it says that it can be reached."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Unreached:
    """A peer that could not be reached, and how that showed."""

    peer: Peer
    why: str

    def __str__(self) -> str:
        return f"{self.peer.name} at {self.peer.address}: {self.why}"


def to_check(cluster_spec: ClusterSpec, job_name: str, task_index: int) -> tuple[Peer, ...]:
    """The peers that this member checks. None for an evaluator: TensorFlow connects it to nobody
    and nobody to it."""
    cluster = training_cluster(cluster_spec)
    ring = [
        Peer(f"{job}:{index}", address)
        for job in (CHIEF, PS, WORKER)
        for index, address in enumerate(cluster.get(job, ()))
    ]
    names = [peer.name for peer in ring]
    own_name = f"{job_name}:{task_index}"
    if own_name not in names:
        return ()
    own = names.index(own_name)
    return (*ring[own + 1 :], *ring[:own])[:MAX_CHECKED]


def ways_that_fail(unreached: Sequence[Unreached]) -> str:
    """The other ends, and what to do about it."""
    named = "; ".join(map(str, unreached[:_MAX_NAMED]))
    more = f"; and {len(unreached) - _MAX_NAMED} more" if len(unreached) > _MAX_NAMED else ""
    return (
        f"{named}{more}: is a firewall between the executors, or does that host have another "
        "address that others reach (network=...)?"
    )
