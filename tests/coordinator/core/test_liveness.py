"""The two clocks: silence is first a diagnosis, then a fence."""

from __future__ import annotations

import pytest

from coordinator.core.liveness import STOP_BOUND, SilenceWatch, deadline
from coordinator.core.member import Member
from coordinator.core.model import MemberId, MemberPhase, Role, Roles, RunSpec

SPEC = RunSpec(roles=Roles(worker=2))
NEVER = float("inf")


def member(index: int, phase: MemberPhase, heard: float) -> Member:
    one = Member(MemberId(Role.WORKER, index), 0.0)
    one.phase, one.last_heard_at = phase, heard
    return one


@pytest.mark.parametrize("phase", list(MemberPhase))
def test_silence_counts_from_the_last_beat_and_only_where_somebody_lives(
    phase: MemberPhase,
) -> None:
    expected = NEVER
    if phase.is_live:
        expected = 100 + SPEC.liveness_ttl
    elif phase is MemberPhase.LOST:
        expected = 100 + SPEC.fence_timeout + STOP_BOUND
    assert deadline(member(0, phase, 100.0), SPEC) == expected


def test_a_fence_is_never_before_the_agent_must_have_stopped() -> None:
    one = member(0, MemberPhase.RUNNING, 0.0)
    lost_at = deadline(one, SPEC)
    one.phase = MemberPhase.LOST
    assert deadline(one, SPEC) >= lost_at + STOP_BOUND


def test_the_watch_looks_at_nobody_before_the_earliest_deadline() -> None:
    early, late = member(0, MemberPhase.READY, 0.0), member(1, MemberPhase.READY, 4.0)
    watch = SilenceWatch([early, late], SPEC)
    assert watch.next_at == NEVER
    watch.expect(late)
    watch.expect(early)
    assert watch.next_at == 15.0
    assert watch.due(14.9) == []
    assert watch.due(15.0) == [early]
    assert watch.due(19.0) == [early, late]


def test_a_beat_only_moves_the_bound_when_it_comes() -> None:
    one = member(0, MemberPhase.READY, 0.0)
    watch = SilenceWatch([one], SPEC)
    watch.expect(one)
    one.last_heard_at = 10.0
    assert watch.next_at == 15.0  # a lower bound
    assert watch.due(15.0) == []
    watch.rearm()
    assert watch.next_at == 25.0


def test_a_pause_of_the_coordinator_extends_whoever_is_watched() -> None:
    live, gone = member(0, MemberPhase.RUNNING, 0.0), member(1, MemberPhase.EXITED, 0.0)
    watch = SilenceWatch([live, gone], SPEC)
    watch.expect(live)
    watch.extend(60.0)
    assert watch.next_at == 75.0
    assert gone.last_heard_at == 0.0
