"""Other members on the same host, which have nothing to do with what is measured and must live
through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import stopwatch
from benchmarks.stopwatch import Process
from benchmarks.victim import idle

_MEMBER = "executor_agent.bootstrap"


@dataclass(frozen=True, slots=True)
class Innocents:
    """``processes``: the members' own, as they were at first."""

    cluster: Any
    processes: frozenset[Process]

    def living(self) -> int:
        """How many are the same processes as at first; the coordinator has to agree, so that one
        that it takes for lost does not count."""
        alive = len(self.processes & _members_of(self.cluster.run_id))
        return min(alive, _running(self.cluster))


@contextmanager
def beside(spark: Any, count: int) -> Iterator[Innocents]:
    """A run of ``count`` small members without TensorFlow that wait. Raises RuntimeError when not
    all of them run."""
    from coordinator import Roles, TFCluster

    cluster = TFCluster.run(
        spark,
        idle,
        roles=Roles(worker=count),
        preload=(),
        name="innocents",
        progress=False,
        reservation_timeout=120.0,
    )
    try:
        found = Innocents(cluster, _members_of(cluster.run_id))
        if found.living() != count:
            raise RuntimeError(f"{found.living()} of {count} innocents run before the first kill")
        yield found
    finally:
        cluster.shutdown(grace=0.0)


def _running(cluster: Any) -> int:
    from coordinator.core.model import MemberPhase

    return sum(member.phase is MemberPhase.RUNNING for member in cluster.status().members)


def _members_of(run_id: str) -> frozenset[Process]:
    marked = stopwatch.marked(f"{run_id}/")
    return frozenset(each for each in marked if _MEMBER in stopwatch.command(each.pid).split())
