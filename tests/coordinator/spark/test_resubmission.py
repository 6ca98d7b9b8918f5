"""Who gets a new Spark job after a restart, and who does not. Pure: no Spark, no threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    MemberId,
    MemberPhase,
    MemberView,
    Restart,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark.jobs import Submitted
from coordinator.spark.resubmission import MAX_SUBMISSIONS, Orders, orders

ONE = MemberId.parse("worker:1")
NOW = 1000.0
EXPECTED = MemberPhase.EXPECTED
ENDED = Submitted(count=0, is_over=True, shared=frozenset({ONE}), why="preempted")
GOES_ON = replace(ENDED, is_over=False)


def worker(index: int, phase: MemberPhase, at: float = NOW, host: str = "") -> MemberView:
    where = ExecutorInfo(host, boot_id="b", pid=1) if host else None
    return MemberView(MemberId.parse(f"worker:{index}"), phase, at, executor=where)


def run_of(*members: MemberView, phase: RunPhase = RunPhase.FORMING, **more: Any) -> RunView:
    spec = RunSpec(Roles(worker=len(members)), name="mnist")
    return RunView(RunId("run"), spec, phase, 1, members, 0.0, 1, **{"restart_count": 1, **more})


ONE_MISSING = (worker(0, MemberPhase.READY), worker(1, EXPECTED))


def test_who_is_missing_after_a_restart_and_has_no_job_gets_one() -> None:
    assert orders(run_of(*ONE_MISSING), {ONE: ENDED}, {}, NOW) == Orders((ONE,))


def test_whose_job_goes_on_starts_again_in_it() -> None:
    assert orders(run_of(*ONE_MISSING), {ONE: GOES_ON}, {ONE: 1}, NOW + 60) == Orders()


def test_a_worker_that_starts_again_alone_gets_a_job_too() -> None:
    run = run_of(worker(0, MemberPhase.RUNNING), worker(1, EXPECTED), phase=RunPhase.RUNNING)
    assert orders(run, {ONE: ENDED}, {}, NOW) == Orders((ONE,))


@pytest.mark.parametrize("phase", [RunPhase.RESTARTING, RunPhase.STOPPING, RunPhase.FAILED])
def test_while_the_last_generation_ends_and_at_the_end_nothing_is_submitted(
    phase: RunPhase,
) -> None:
    assert orders(run_of(*ONE_MISSING, phase=phase), {}, {}, NOW) == Orders()


def test_before_any_restart_the_end_of_a_job_is_a_failure() -> None:
    """It is told as such (`session`), and nothing is submitted."""
    assert orders(run_of(*ONE_MISSING, restart_count=0), {}, {}, NOW) == Orders()


def test_jobs_in_vain_come_to_an_end_which_says_what_became_of_the_last() -> None:
    in_vain = replace(ENDED, count=MAX_SUBMISSIONS, why="no space left on device")
    given = orders(run_of(*ONE_MISSING), {ONE: in_vain}, {}, NOW)
    assert given == Orders((), {ONE: "no space left on device"})
    last = replace(in_vain, is_over=False)
    assert orders(run_of(*ONE_MISSING), {ONE: last}, {ONE: 1}, NOW) == Orders()


# -- jobs that go on, but without the member ---------------------------------------------------


SHARED = replace(GOES_ON, shared=frozenset({MemberId.parse("worker:0"), ONE}))


def test_a_shared_job_without_a_task_for_the_member_is_not_waited_for() -> None:
    """Of the two tasks one has ended, and its row comes only with that of the other."""
    run = run_of(*ONE_MISSING)
    assert orders(run, {ONE: SHARED}, {ONE: 1}, NOW + 60) == Orders((ONE,))
    assert orders(run, {ONE: SHARED}, {ONE: 1}, NOW + 1) == Orders(), "it may just be starting"
    assert orders(run, {ONE: SHARED}, {ONE: 2}, NOW + 60) == Orders(), "the other is its own"
    assert orders(run, {ONE: SHARED}, {}, NOW + 60) == Orders(), "Spark does not say"


FAILED_TWICE = tuple(
    Restart(NOW, number, Cause.KILLED_BY_SIGNAL, "killed", ONE, "bad") for number in (1, 2)
)


def avoiding(other: str = "good", **more: Any) -> RunView:
    members = worker(0, MemberPhase.READY, host=other), worker(1, EXPECTED, host="bad")
    return run_of(*members, **{"restarts": FAILED_TWICE, "restart_count": 2, **more})


def test_a_member_whose_task_is_on_a_host_that_fails_may_come_from_another_one() -> None:
    """The task there stands by meanwhile, and is taken when nobody else comes."""
    later = NOW + 10
    assert orders(avoiding(), {ONE: GOES_ON}, {ONE: 1}, later) == Orders((ONE,))
    once = replace(GOES_ON, count=1)
    assert orders(avoiding(), {ONE: once}, {ONE: 2}, later) == Orders(), "once for each restart"


def test_a_host_is_avoided_only_while_there_is_another_and_for_a_while() -> None:
    later = NOW + 10
    assert orders(avoiding(other="bad"), {ONE: GOES_ON}, {ONE: 1}, later) == Orders()
    assert orders(avoiding(), {ONE: GOES_ON}, {ONE: 1}, NOW + 120) == Orders()
    alone = avoiding(phase=RunPhase.RUNNING)
    assert orders(alone, {ONE: GOES_ON}, {ONE: 1}, later) == Orders()
    assert orders(avoiding(), {ONE: GOES_ON}, {ONE: 0}, later) == Orders(), "it has no slot yet"
