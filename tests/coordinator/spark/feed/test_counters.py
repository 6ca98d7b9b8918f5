"""What of the members' counts is movement of a feed."""

from __future__ import annotations

from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark.feed.counters import Counters

WORKER = MemberId(Role.WORKER, 0)


def counted(**metrics: float) -> Counters:
    named = {f"feed/input/{name}": value for name, value in metrics.items()}
    member = MemberView(WORKER, MemberPhase.RUNNING, 0.0, metrics={"loss": 0.5, **named})
    spec = RunSpec(Roles(worker=1))
    run = RunView(RunId("run-1"), spec, RunPhase.RUNNING, 1, (member,), 0.0, 1)
    return Counters.of(run, "input", 1, [WORKER])


def test_to_wait_for_rows_is_no_movement_of_the_feed() -> None:
    """The coordinator takes it for a sign of life; a feed that nobody fills is stalled (F3)."""
    assert counted(rows=3, train=1, waited=5) == counted(rows=3, train=1, waited=600)
    assert counted(rows=3, train=1) != counted(rows=4, train=1)
    assert counted(rows=3, train=1).total("rows") == 3
