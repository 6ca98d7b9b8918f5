"""A sentinel that is frozen, and told to stop: its agent does not wait for it for ever."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.core import events
from coordinator.core.model import Cause, MemberPhase, Proof, Role, Roles, RunPhase, RunSpec
from coordinator.testing import Serving, serving
from tests.integration.attending_tree import AttendingTree
from tests.integration.sentinel_helpers import Member, wait_gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[AttendingTree]:
    member = Member(tmp_path)
    yield AttendingTree(member)
    member.close()


async def test_a_frozen_sentinel_and_task_do_not_keep_a_member_that_is_to_stop(
    coordinator: Serving, tree: AttendingTree
) -> None:
    """O12, O14. Neither can act and neither is dead, so that the kernel keeps still: the agent
    kills the sentinel, sweeps, and reports what it has proven before the stop is given up."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=1), grace={Role.WORKER: 0.0}))
    await tree.start(run_id, coordinator.address, coordinator.token)
    await coordinator.until(run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING)
    tree.member.kill("sentinel", "task", number=signal.SIGSTOP)
    coordinator.engine.feed(events.StopRequested(run_id, "seen enough", 0.0))
    run = await coordinator.ended(run_id)
    wait_gone(tree.member.tree())
    assert run.phase is RunPhase.CANCELLED
    report = run.members[0].exit
    assert report is not None
    assert (report.proof, report.survivors) == (Proof.SWEEP, ())
    assert "sentinel did not end in time" in report.reason
    tree.member.kill("task", number=signal.SIGCONT)
    tombstone = tree.member.result()
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())
    assert not tree.member.claim.exists()


async def test_a_frozen_sentinel_does_not_keep_alive_what_its_task_has_left(
    coordinator: Serving, tree: AttendingTree
) -> None:
    """O1. With a grace the kernel has no word from the task alone, and the program ignores its own
    watcher; its agent looks whether the sentinel still can see anything."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=1), grace={Role.WORKER: 30.0}))
    await tree.start(run_id, coordinator.address, coordinator.token, grace=30.0)
    await coordinator.until(run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING)
    agent = tree.member.agent()
    tree.member.kill("sentinel", number=signal.SIGSTOP)
    tree.member.kill("task")
    run = await coordinator.ended(run_id)
    wait_gone([*tree.member.tree(), agent])
    assert run.failure is not None
    assert run.failure.cause is Cause.PREEMPTED
    assert not tree.member.claim.exists()
