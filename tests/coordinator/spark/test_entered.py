"""When `TFCluster.run` may return: E1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark.cluster import _all_entered

RUN = RunView(
    run_id=RunId("run"),
    spec=RunSpec(Roles(worker=2)),
    phase=RunPhase.FORMING,
    generation=0,
    members=(),
    created_at=0.0,
    revision=1,
)


def run_of(phase: RunPhase, generation: int, *members: MemberPhase) -> RunView:
    slots = [
        MemberView(MemberId.parse(f"worker:{index}"), each, 0.0)
        for index, each in enumerate(members)
    ]
    return replace(RUN, phase=phase, generation=generation, members=tuple(slots))


@pytest.mark.parametrize(
    "members",
    [
        (MemberPhase.EXITED, MemberPhase.RESERVED),
        (MemberPhase.RESERVED, MemberPhase.RESERVED),
        (MemberPhase.EXITED, MemberPhase.STOPPED),
    ],
)
def test_a_gang_that_did_not_form_is_never_taken_for_one_at_work(
    members: tuple[MemberPhase, ...],
) -> None:
    """One failed while the others were importing, and `run` used to return a cluster."""
    assert not _all_entered(run_of(RunPhase.STOPPING, 0, *members))


def test_all_have_entered_when_none_is_starting_any_more() -> None:
    running, starting = MemberPhase.RUNNING, MemberPhase.STARTING
    assert not _all_entered(run_of(RunPhase.RUNNING, 1, running, starting))
    assert _all_entered(run_of(RunPhase.RUNNING, 1, running, running))
    assert _all_entered(run_of(RunPhase.RUNNING, 1, running, MemberPhase.EXITED)), "quickly done"


def test_a_gang_that_starts_again_has_not_entered_yet() -> None:
    running, starting = MemberPhase.RUNNING, MemberPhase.STARTING
    expected, ended = MemberPhase.EXPECTED, MemberPhase.EXITED
    assert not _all_entered(run_of(RunPhase.RESTARTING, 1, ended, ended))
    assert not _all_entered(run_of(RunPhase.FORMING, 1, expected, expected))
    assert not _all_entered(run_of(RunPhase.RUNNING, 2, running, starting))
    assert not _all_entered(run_of(RunPhase.RUNNING, 1, running, expected)), "one comes back alone"
    assert _all_entered(run_of(RunPhase.RUNNING, 2, running, running))
    assert _all_entered(run_of(RunPhase.STOPPING, 1, ended, expected)), "settled before long"
