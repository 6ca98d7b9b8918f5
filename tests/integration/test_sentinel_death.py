"""When the sentinel itself is killed or hangs: the kernel, then the task, finish its work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.processes import is_running, signal_if_same
from tests.integration.sentinel_helpers import ALL, TASK_GONE, Member, wait_gone

pytestmark = pytest.mark.slow

NASTY = {"children": list(ALL), "ignore": True}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


def test_a_killed_sentinel_is_replaced_by_its_task(member: Member) -> None:
    """O5, O10: the kernel kills the member's group, the task sweeps the rest by marker."""
    member.start(payload=NASTY)
    member.wait_heard("started")
    (member.directory / "local").mkdir()
    member.kill("sentinel")
    tombstone = member.result()
    assert not any(is_running(who) for who in member.tree())
    assert member.marked() == []
    assert tombstone.reason == "sentinel was killed by signal 9"
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())
    assert tombstone.pid == member.processes["member"].pid
    assert (tombstone.exit_code, tombstone.signal) == (None, None)
    assert tombstone == member.tombstone()
    assert not (member.directory / "local").exists()
    assert member.heard()[-1]["event"] == "eof", "the agent had the time to notice and report"


def test_a_member_dies_with_its_sentinel_while_the_task_is_frozen(member: Member) -> None:
    """PDEATHSIG alone: the stopped task still holds the dead-man pipes."""
    member.start(payload=NASTY, grace=30.0)
    member.kill("task", number=signal.SIGSTOP)
    member.kill("sentinel")
    wait_gone([member.processes["member"]])
    member.kill("task", number=signal.SIGCONT)
    assert member.result().proof == "sweep"
    assert not any(is_running(who) for who in member.tree())


def test_an_agent_that_stays_behind_a_killed_sentinel_is_swept_in_the_end(member: Member) -> None:
    """O10: it is spared for its report, not for ever."""
    member.start(payload=NASTY, agent={"stay": True}, report_timeout=0.5)
    member.wait_heard("started")
    member.kill("sentinel")
    tombstone = member.result()
    assert tombstone.proof == "sweep"
    assert tombstone.stop_seconds >= 0.5
    assert member.marked() == []


def test_sentinel_and_task_killed_together_leave_the_group_to_the_kernel(member: Member) -> None:
    """O1, O14: nobody is alive to do anything. Sessions of their own wait for the next sweep."""
    member.start(payload=NASTY, grace=30.0)
    member.kill_sentinel_and_task_at_once()
    wait_gone([member.processes["member"], member.processes["plain"]])
    assert is_running(member.processes["setsid"]), "the known gap has closed: say so in the docs"
    marked = member.marked()
    assert member.processes["setsid"] in marked
    assert member.processes["double"] in marked
    for identity in marked:
        signal_if_same(identity, signal.SIGKILL)


def test_a_hung_sentinel_does_not_save_the_member_when_the_grace_is_0(member: Member) -> None:
    """D2: only the task holds that pipe, so a stopped sentinel changes nothing."""
    member.start(payload=NASTY)
    member.kill("sentinel", number=signal.SIGSTOP)
    member.kill("task")
    wait_gone([member.processes["member"], member.processes["plain"]])
    member.kill("sentinel", number=signal.SIGCONT)
    tombstone = member.tombstone()
    assert not any(is_running(who) for who in member.tree())
    assert (tombstone.signal, tombstone.killed_by_us) == (signal.SIGKILL, True)
    assert tombstone.reason != "member exited", "it was the task that went first"
    assert tombstone.proof == "kernel"


def test_the_dead_mans_pipe_of_the_task_spares_a_member_with_a_grace(member: Member) -> None:
    """With a grace it stays unarmed: it would cut off the checkpoint."""
    record = member.root / "stop"
    member.start(payload={"on_stop": {"record": str(record), "exit": 5}}, grace=30.0)
    member.kill("sentinel", number=signal.SIGSTOP)
    member.kill("task")
    wait_gone([member.processes["task"]])
    assert is_running(member.processes["member"])
    member.kill("sentinel", number=signal.SIGCONT)
    assert member.tombstone().exit_code == 5


def test_a_member_that_left_because_its_task_was_gone_did_not_end_by_itself(
    member: Member,
) -> None:
    """O14. It may see that its task is gone before a slow sentinel does, which then finds both."""
    member.start(grace=30.0)
    member.kill("sentinel", number=signal.SIGSTOP)
    member.kill("task")
    wait_gone([member.processes["task"]])
    member.kill("member")
    wait_gone([member.processes["member"]])
    member.kill("sentinel", number=signal.SIGCONT)
    assert member.tombstone().reason in TASK_GONE


def test_a_task_that_returns_does_not_wait_for_a_hung_sentinel_for_ever(member: Member) -> None:
    """O12: a bounded wait; then the sentinel is killed and the sweep does its work."""
    member.start(payload=NASTY, kill_timeout=0.1, report_timeout=0.1, term_timeout=0.1)
    member.wait_heard("started")
    member.kill("sentinel", number=signal.SIGSTOP)
    member.let_return()
    tombstone = member.result()
    assert tombstone.reason == "sentinel did not end in time and was killed"
    assert tombstone.proof == "sweep"
    assert not any(is_running(who) for who in member.tree())
