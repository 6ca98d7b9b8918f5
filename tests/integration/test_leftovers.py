"""O14: what is left when sentinel and task are killed at once is found by its traces, and ended by
the next agent on the host or by `tflease reap`; nobody else ever is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.core.model import MemberPhase, Roles, RunSpec
from coordinator.testing import Serving, serving
from executor_agent import leftovers
from executor_agent.core.supervision import (
    TOMBSTONE,
)
from executor_agent.processes import is_running
from executor_agent.sweep import Swept, unseen_end
from tests.integration.agent_harness import AgentProcess
from tests.integration.leaving import claim_of, find, leave, reap_one, tombstone_of
from tests.integration.sentinel_helpers import (
    ROOT,
    Member,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


# Found by each trace, and ended.


@pytest.mark.parametrize(
    "kind, evidence",
    [("marked", "marker"), ("writer", "writes to its log"), ("holder", "holds its pipe")],
)
def test_a_session_of_its_own_is_found_by_the_one_trace_that_it_has(
    member: Member, kind: str, evidence: str
) -> None:
    """O4, O5, O14: it left the group that the kernel kills."""
    leave(member, kind)
    (member.directory / "local").mkdir()
    who = member.processes[kind]
    assert is_running(who)
    [leftover] = find(member)
    assert [(each.identity, each.evidence) for each in leftover.processes] == [(who, evidence)]
    assert leftover.why == "sentinel is gone"
    assert (leftover.run_id, leftover.member) == (member.marker, "worker:1")
    assert leftover.since == pytest.approx(time.time(), abs=3600)
    reaped = leftovers.reap(leftover, by="a test")
    assert not is_running(who)
    assert (list(reaped.swept.killed), reaped.swept.left) == ([who], [])
    assert leftovers.in_words(reaped).endswith("nothing is left")
    assert not member.claim.exists()
    assert not (member.directory / "local").exists()
    tombstone = tombstone_of(member)
    assert tombstone.reason == "sentinel is gone; swept by a test"
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())
    assert tombstone.pid == member.processes["member"].pid
    # Again: there is nothing left to find, and who has found it before changes nothing.
    assert find(member) == ()
    assert leftovers.reap(leftover, by="another").swept.killed == {}
    assert tombstone_of(member) == tombstone
    assert not member.claim.exists()


def test_all_of_them_at_once(member: Member) -> None:
    kinds = ("marked", "writer", "holder")
    leave(member, *kinds)
    assert set(reap_one(member).swept.killed) == {member.processes[kind] for kind in kinds}
    assert find(member) == ()


def test_a_process_that_has_overwritten_its_environment_is_found_by_its_claim(
    member: Member,
) -> None:
    """As setproctitle does; this one has also disarmed the kernel's promises."""
    leave(member, tough=True)
    who = member.processes["member"]
    assert is_running(who)
    [leftover] = find(member)
    assert [(each.identity, each.evidence) for each in leftover.processes] == [(who, "claimed")]
    reap_one(member)
    assert not is_running(who)


def test_a_tombstone_of_somebody_who_has_seen_more_stays_as_it_is(member: Member) -> None:
    """Its task, say, which was killed before it could take the claim away."""
    leave(member, "marked")
    seen = unseen_end(("worker:1", "run", "1"), claim_of(member), "task died", Swept())
    (member.directory / TOMBSTONE).write_text(seen.to_json())
    reap_one(member)
    assert tombstone_of(member) == seen
    assert not member.claim.exists()


def test_a_claim_whose_member_has_left_nobody_only_gets_its_proof(member: Member) -> None:
    leave(member)
    [leftover] = find(member)
    assert leftover.processes == ()
    reap_one(member)
    assert tombstone_of(member).proof == "sweep"
    assert not member.claim.exists()


def test_who_has_no_trace_at_all_is_found_by_nobody(member: Member) -> None:
    """The known gap; if this fails it has closed: say so in the docs."""
    leave(member, "traceless")
    [leftover] = find(member)
    assert leftover.processes == ()
    member.kill("traceless")


def test_a_member_without_a_claim_is_found_by_its_marker_alone(member: Member) -> None:
    leave(member, "marked")
    member.claim.unlink()
    assert find(member) == ()
    unclaimed = leftovers.find_unclaimed(member.claim.parent)
    [leftover] = [each for each in unclaimed if each.marker == member.marker]
    assert [each.identity for each in leftover.processes] == [member.processes["marked"]]
    assert leftover.since is None
    leftovers.reap(leftover, by="a test")
    assert not is_running(member.processes["marked"])


# The next agent.


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


async def test_the_next_agent_ends_them_before_it_reserves_and_says_so(
    coordinator: Serving, member: Member
) -> None:
    """O14."""
    await asyncio.to_thread(leave, member, "marked", "writer", "holder")
    directory = member.root / "next"
    directory.mkdir()
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    agent = AgentProcess(directory, coordinator.address, coordinator.token, run_id)
    agent.start(claim=str(member.claim.parent / "next.json"))
    try:
        async with asyncio.timeout(30):
            await coordinator.until(
                run_id, lambda run: run.members[0].phase is MemberPhase.RESERVED
            )
        assert not any(is_running(who) for who in member.tree())
        assert not member.claim.exists()
        assert f"[{member.marker}] was left behind (sentinel is gone)" in agent.stderr
        assert all(
            str(member.processes[kind].pid) in agent.stderr
            for kind in ("marked", "writer", "holder")
        )
    finally:
        agent.close()
    assert tombstone_of(member).reason.endswith(f"swept by [{agent.config.marker}]")


# By hand.


def reaper(member: Member, *arguments: str) -> subprocess.Popen[str]:
    """`tflease reap` as a shell runs it, for this member alone."""
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator.cli", "reap", "--home", str(member.root), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_reapers_at_once_both_end_well(member: Member) -> None:
    leave(member, "marked", "writer", "holder")
    both = [reaper(member, "--run", member.marker, "--yes", "--json") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert not any(is_running(who) for who in member.tree())
    assert not member.claim.exists()
    assert tombstone_of(member).reason == "sentinel is gone; swept by tflease reap"
    assert [path for path in member.directory.iterdir() if path.name.startswith(".")] == []
    assert list(member.claim.parent.iterdir()) == []


def test_the_command_lists_then_ends_then_finds_nothing(member: Member) -> None:
    leave(member, "marked", "writer")
    outputs = []
    for arguments in ((), ("--yes",), ("--json",)):
        process = reaper(member, "--run", member.marker, *arguments)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        outputs.append(output)
        if not arguments:
            assert is_running(member.processes["marked"]), "a mere list changes nothing"
            assert member.claim.exists()
    listed, ended, nothing = outputs
    assert f"worker:1 of run {member.marker}" in listed
    assert "sentinel is gone" in listed
    for kind, evidence in (("marked", "marker"), ("writer", "writes to its log")):
        pid = str(member.processes[kind].pid)
        [line] = [line for line in listed.splitlines() if line.split()[:1] == [pid]]
        assert evidence in line
        assert line.split()[-2:] == ["sleep", "600"]
    assert "nothing was changed" in listed
    assert "nothing is left" in ended
    assert not any(is_running(who) for who in member.tree())
    found = json.loads(nothing)
    assert (found["leftovers"], found["living"]) == ([], 0)
