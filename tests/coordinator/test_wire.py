"""What goes over the wire comes back the same."""

from __future__ import annotations

from dataclasses import fields

import pytest

from coordinator import wire
from coordinator.core.model import Cause, ExitReport, Proof, Role, Roles, RunSpec
from coordinator.core.policy import Action, RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts

SPEC = RunSpec(
    roles=Roles(chief=1, worker=2, ps=3, evaluator=4),
    name="mnist",
    reservation_timeout=1.5,
    liveness_ttl=20.0,
    fence_timeout=130.0,
    beat_interval=2.5,
    grace={Role.CHIEF: 60.0, Role.WORKER: 1.0, Role.PS: 2.0, Role.EVALUATOR: 3.0},
    completion=frozenset({Role.WORKER}),
    python_version="3.11.7",
    tflease_version="0.1.0",
    owner_timeout=300.0,
    gpus=Roles(chief=1, worker=2, ps=3, evaluator=4),
    restart=RestartPolicy(
        max_restarts=7,
        on={Cause.USER_EXCEPTION: Action.RESTART_GANG, Cause.STALLED: Action.FAIL},
        backoff=2.5,
        max_backoff=30.0,
        progress_refills=False,
        alone=False,
    ),
    stall=StallTimeouts(start=60.0, step=None, checkpoint=120.5, evaluation=None),
)


def test_a_spec_with_nothing_left_at_its_default_survives() -> None:
    plain = RunSpec(roles=Roles(worker=1))
    same = [
        each.name
        for each in fields(RunSpec)
        if getattr(SPEC, each.name) == getattr(plain, each.name)
    ]
    assert not same, "a field that is at its default proves nothing"
    assert wire.spec_from_pb(wire.spec_to_pb(SPEC)) == SPEC


def test_without_an_owner_timeout_there_is_none_on_the_other_side() -> None:
    spec = RunSpec(roles=Roles(worker=1))
    assert wire.spec_from_pb(wire.spec_to_pb(spec)) == spec


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_number(cause: Cause) -> None:
    report = ExitReport(cause, signal=9, proof=Proof.KERNEL, survivors=("1 x",))
    assert wire.exit_from_pb(wire.exit_to_pb(report)) == report
