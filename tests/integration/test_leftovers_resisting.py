"""Leftovers that are not just swept: a sentinel that hangs, who survives SIGKILL (O10, O12), and
others who sweep at the same time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent import leftovers
from executor_agent.core.claim import Standing
from executor_agent.core.supervision import (
    TOMBSTONE,
    Survivor,
)
from executor_agent.leftovers import Leftover
from executor_agent.processes import is_running
from executor_agent.sweep import Swept, unseen_end
from tests.integration.freezer import Freezer, why_not
from tests.integration.leaving import claim_of, find, is_stopped, leave, reap_one, tombstone_of
from tests.integration.sentinel_helpers import (
    ALL,
    Member,
    eventually,
    wait_gone,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

needs_freezer = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


# A sentinel that hangs.


def test_a_stopped_sentinel_whose_task_is_dead_is_ended_with_its_member(member: Member) -> None:
    """SIGSTOP, then SIGKILL of the task: the kernel's promises hold, but nobody lets go of them."""
    member.start(payload={"children": list(ALL), "ignore": True}, grace=30.0)
    member.wait_heard("started")
    member.kill("sentinel", number=signal.SIGSTOP)
    eventually(lambda: is_stopped(member.processes["sentinel"]), "the sentinel to stop")
    member.kill("task")
    wait_gone([member.processes["task"]])
    assert is_running(member.processes["member"])
    [leftover] = find(member)
    assert leftover.why == "sentinel is stopped, and what it watched is gone"
    reap_one(member)
    assert not any(is_running(who) for who in member.processes.values())
    assert not member.claim.exists()
    assert tombstone_of(member).reason == f"{Standing.HUNG.value}; swept by a test"


def test_a_stopped_sentinel_whose_task_lives_is_left_alone(member: Member) -> None:
    """A debugger, or a machine that sleeps: its task waits for it, and ends it in time."""
    member.start()
    member.wait_heard("started")
    member.kill("sentinel", number=signal.SIGSTOP)
    eventually(lambda: is_stopped(member.processes["sentinel"]), "the sentinel to stop")
    assert find(member) == ()
    leftovers.reap_all(member.claim.parent, by="a test", say=pytest.fail)
    assert all(is_running(who) for who in member.processes.values())
    member.kill("sentinel", number=signal.SIGCONT)
    member.let_return()
    assert member.result().proof == "kernel"


def test_a_sentinel_that_runs_again_before_it_is_its_turn_is_left_alone(member: Member) -> None:
    member.start(grace=60.0)
    member.wait_heard("started")
    member.kill("sentinel", number=signal.SIGSTOP)
    eventually(lambda: is_stopped(member.processes["sentinel"]), "the sentinel to stop")
    member.kill("task")
    wait_gone([member.processes["task"]])
    [leftover] = find(member)
    member.kill("sentinel", number=signal.SIGCONT)
    eventually(lambda: not is_stopped(member.processes["sentinel"]), "the sentinel to go on")
    reaped = leftovers.reap(leftover, by="a test")
    assert (reaped.spared, reaped.swept.killed) == (True, {})
    assert is_running(member.processes["member"])
    member.kill("member")
    assert member.tombstone().proof == "kernel"


# Who survives SIGKILL.


def test_a_survivor_is_looked_at_again_though_it_has_no_trace(member: Member) -> None:
    """O10, O12: a tombstone names it, by its identity."""
    leave(member, "traceless")
    who = member.processes["traceless"]
    seen = unseen_end(("worker:1", "run", "1"), claim_of(member), "task died", Swept())
    named = Survivor(who.pid, "sleep", who.create_time)
    seen = seen.replace(survivors=(named,), proof="none")
    (member.directory / TOMBSTONE).write_text(seen.to_json())
    [leftover] = find(member)
    assert [(each.identity, each.evidence) for each in leftover.processes] == [(who, "claimed")]
    reap_one(member)
    assert not is_running(who)
    assert tombstone_of(member) == seen.replace(survivors=(), proof="sweep")
    assert not member.claim.exists()


@needs_freezer
def test_a_frozen_process_is_named_and_its_claim_stays_until_it_is_gone(member: Member) -> None:
    """O12: state D; everybody else is ended."""
    leave(member, "marked", "writer")
    who = member.processes["writer"]
    freezer = Freezer()
    try:
        freezer.hold(who.pid)
        for _ in range(2):
            reaped = reap_one(member, kill_timeout=0.2)
            assert reaped.swept.left == [who]
            assert f"SIGKILL has not ended {who.pid}" in leftovers.in_words(reaped)
            assert not is_running(member.processes["marked"])
            tombstone = tombstone_of(member)
            assert tombstone.survivors == (Survivor(who.pid, "sleep", who.create_time),)
            assert tombstone.proof == "none"
            assert member.claim.exists()
        assert leftovers.kernel_state(who.pid).startswith("D")
        freezer.let_go()
        wait_gone([who])
        reap_one(member)
        assert (tombstone_of(member).proof, tombstone_of(member).survivors) == ("sweep", ())
        assert not member.claim.exists()
    finally:
        freezer.close()


# Beside others who sweep.


def test_a_task_that_sweeps_at_the_same_time_still_has_its_report(member: Member) -> None:
    """O5, O10: whoever is first, the tree is gone and the report says what was seen."""
    member.start(payload={"children": list(ALL), "ignore": True})
    member.wait_heard("started")
    claim = claim_of(member)
    member.kill("sentinel")
    wait_gone([member.processes["sentinel"]])
    why = Standing.ABANDONED.value
    leftover = Leftover(member.marker, why, claim.claimed_at, (), member.claim, claim)
    reaped = leftovers.reap(leftover, by="a test")
    assert reaped.swept.left == []
    tombstone = member.result()
    assert tombstone.reason in ("sentinel was killed by signal 9", f"{why}; swept by a test")
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())
    assert not any(is_running(who) for who in member.tree())
    assert not member.claim.exists()


def test_a_task_that_wakes_too_late_returns_what_others_have_proven(member: Member) -> None:
    member.start(payload={"children": list(ALL), "ignore": True}, grace=30.0)
    member.wait_heard("started")
    member.kill("task", number=signal.SIGSTOP)
    eventually(lambda: is_stopped(member.processes["task"]), "the task to stop")
    member.kill("sentinel")
    wait_gone([member.processes["sentinel"]])
    reap_one(member)
    assert not any(is_running(who) for who in member.tree())
    member.kill("task", number=signal.SIGCONT)
    tombstone = member.result()
    assert tombstone.reason == "sentinel is gone; swept by a test"
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())


def test_an_agent_that_has_lost_its_sentinel_may_report_before_it_is_ended(
    member: Member,
) -> None:
    """It leaves by itself; only one that stays is killed."""
    member.start(agent={"stay": True})
    member.wait_heard("started")
    agent = member.agent()
    member.kill("task", number=signal.SIGSTOP)
    member.kill("sentinel")
    wait_gone([member.processes["sentinel"]])
    reaped = reap_one(member, agent_timeout=0.5)
    assert agent in reaped.swept.killed
    assert member.heard()[-1]["event"] == "eof", "it had the time to notice"
    assert reaped.swept.seconds >= 0.5
    member.kill("task", number=signal.SIGCONT)
    assert member.result().proof == "sweep"
