"""O12: a process of the member's that SIGKILL does not end, in state D for instance. Everything
else ends in bounded time, says who is left, and leaves the claim for whoever looks next."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from coordinator.core import events
from coordinator.core.model import Cause, ExitReport, Proof, Roles, RunId, RunPhase, RunSpec
from coordinator.testing import Serving, serving
from executor_agent import launcher
from executor_agent.core.supervision import TOMBSTONE, Tombstone
from executor_agent.member_directory import HOME_VARIABLE
from executor_agent.member_launch import MemberLaunch
from executor_agent.processes import ProcessIdentity, identity_of, is_running, signal_if_same
from executor_agent.spark_task import MemberTask
from tests.integration.freezer import Freezer, why_not
from tests.integration.sentinel_helpers import ALL, Member, wait_gone
from tests.integration.test_agent import task_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WHO = "worker:0", "attempt-1"
NASTY = {"children": list(ALL), "ignore": True}
SHORT = dict.fromkeys(("term_timeout", "kill_timeout", "report_timeout"), 0.3)
needs_freezer = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Unkillable(Protocol):
    """What makes a process survive SIGKILL."""

    def hold(self, pid: int) -> None: ...
    def let_go(self) -> None: ...


class Spared:
    """Only as far as the sentinel can tell; needs no privilege."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._file.touch()
        self._held: list[ProcessIdentity] = []

    def hold(self, pid: int) -> None:
        identity = identity_of(pid)
        assert identity is not None
        self._held.append(identity)
        self._file.write_text(str(pid))

    def let_go(self) -> None:
        for identity in self._held:
            signal_if_same(identity, signal.SIGKILL)


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    freezer = Freezer()
    yield freezer
    freezer.close()


@pytest.fixture(params=[pytest.param("frozen", marks=needs_freezer), "spared"])
def unkillable(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Unkillable]:
    if request.param == "frozen":
        yield request.getfixturevalue("freezer")
        return
    monkeypatch.setenv("TFLEASE_TEST_SPARED", str(tmp_path / "spared"))
    sparing = "tests.integration.programs.sparing_sentinel"
    monkeypatch.setattr(launcher, "SENTINEL_MODULE", sparing)
    spared = Spared(tmp_path / "spared")
    yield spared
    spared.let_go()


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


def main_fun(args: Any, ctx: Any) -> None:
    import subprocess

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    ctx.report_progress(child.pid)
    child.wait()


# A whole member, with nothing played.


def is_claimed(home: Path, run_id: RunId) -> bool:
    """Whether a member of this run is still to be looked after."""
    return any(run_id in name for name in os.listdir(home / "claims"))


class Hurried(MemberTask):
    """Gives SIGKILL less time than a big process would need."""

    def _launch(self, *args: Any) -> MemberLaunch:
        return replace(super()._launch(*args), kill_timeout=1.0)


async def run_member(coordinator: Serving, run_id: RunId, function: Any) -> dict[str, Any]:
    """Its row."""
    task = task_of(coordinator, run_id, function)
    hurried = Hurried(**{each.name: getattr(task, each.name) for each in fields(task)})
    return await asyncio.to_thread(hurried._run, *WHO, 1)


async def leave_somebody(
    coordinator: Serving, run_id: RunId, unkillable: Unkillable
) -> tuple[ProcessIdentity, dict[str, Any]]:
    """Stop a member of which somebody stays; who it is, and the row."""
    ending = asyncio.create_task(run_member(coordinator, run_id, main_fun))
    run = await coordinator.until(run_id, lambda run: run.members[0].step > 0)
    left = identity_of(run.members[0].step)
    assert left is not None
    unkillable.hold(left.pid)
    coordinator.engine.feed(events.StopRequested(run_id, "seen enough", 0.0))
    return left, await ending


async def test_all_say_who_is_left_and_go_on_without_it(
    coordinator: Serving, home: Path, unkillable: Unkillable
) -> None:
    """O12: sentinel and task end, the coordinator hears of it from the agent, the row and the
    tombstone agree, and the claim stays."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    left, row = await leave_somebody(coordinator, run_id, unkillable)
    assert is_running(left)
    named = (f"{left.pid} sleep",)
    from_the_task = ExitReport.from_json(row["report"])
    assert (from_the_task.proof, from_the_task.survivors) == (Proof.NONE, named)
    assert from_the_task.reason == "seen enough"
    run = await coordinator.ended(run_id)
    assert run.phase is RunPhase.CANCELLED
    from_the_agent = run.members[0].exit
    assert from_the_agent is not None
    assert from_the_agent.cause is Cause.STOPPED
    assert (from_the_agent.proof, from_the_agent.survivors) == (Proof.NONE, named)
    [directory] = (home / run_id).iterdir()
    tombstone = Tombstone.from_json((directory / TOMBSTONE).read_bytes())
    assert [(each.pid, each.name) for each in tombstone.survivors] == [(left.pid, "sleep")]
    assert is_claimed(home, run_id)
    unkillable.let_go()
    await asyncio.to_thread(wait_gone, [left])


@needs_freezer
async def test_the_next_member_looks_again_and_is_not_kept_by_what_it_finds(
    coordinator: Serving, home: Path, freezer: Freezer
) -> None:
    """O12, O14: in quarantine until somebody finds it gone."""
    first, *others = (coordinator.create_run(RunSpec(Roles(worker=1))) for _ in range(3))
    left, _ = await leave_somebody(coordinator, first, freezer)
    in_vain = await run_member(coordinator, others[0], lambda args, ctx: None)
    assert ExitReport.from_json(in_vain["report"]).cause is Cause.COMPLETED
    assert is_running(left)
    assert is_claimed(home, first)
    freezer.let_go()
    await asyncio.to_thread(wait_gone, [left])
    await run_member(coordinator, others[1], lambda args, ctx: None)
    assert not is_claimed(home, first)
    [directory] = (home / first).iterdir()
    tombstone = Tombstone.from_json((directory / TOMBSTONE).read_bytes())
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())


# Stand-ins for agent and member, and everybody in turn.


@needs_freezer
@pytest.mark.parametrize("who", ["member", *ALL])
def test_whoever_it_is_the_others_die_and_it_is_named(
    member: Member, freezer: Freezer, who: str
) -> None:
    """O12: the leader itself, a child, one in a session of its own, an orphan."""
    member.start(payload=NASTY, **SHORT)
    member.wait_heard("started")
    left = member.processes[who]
    freezer.hold(left.pid)
    member.let_return()
    tombstone = member.result()
    assert [each for each in member.tree() if is_running(each)] == [left]
    assert tombstone.proof == "none"
    assert [each.pid for each in tombstone.survivors] == [left.pid]
    heard = member.wait_heard("exited")
    assert heard["proof"] == "none"
    assert [each["pid"] for each in heard["survivors"]] == [left.pid]
    assert (tombstone.exit_code, tombstone.signal) == (
        (None, None) if who == "member" else (None, signal.SIGKILL)
    )
    assert tombstone == member.tombstone()
    assert member.claim.exists()
    freezer.let_go()
    wait_gone([left])


@needs_freezer
def test_an_agent_that_cannot_be_killed_does_not_keep_the_member(
    member: Member, freezer: Freezer
) -> None:
    """O12: the member is proven gone; the agent is named, and the claim stays for its sake."""
    member.start(payload=NASTY, **SHORT)
    member.wait_heard("started")
    agent = member.agent()
    freezer.hold(agent.pid)
    member.let_return()
    tombstone = member.result()
    assert not any(is_running(each) for each in member.tree())
    assert is_running(agent)
    assert tombstone.proof == "sweep"
    assert [each.pid for each in tombstone.survivors] == [agent.pid]
    assert member.claim.exists()
    freezer.let_go()
    wait_gone([agent])


@needs_freezer
def test_a_sentinel_that_cannot_be_killed_is_not_waited_for_for_ever(
    member: Member, freezer: Freezer
) -> None:
    """O12: the task sweeps in its stead. The sentinel runs nothing of the user's."""
    member.start(payload=NASTY, **SHORT)
    member.wait_heard("started")
    sentinel = member.processes["sentinel"]
    freezer.hold(sentinel.pid)
    member.let_return()
    tombstone = member.result()
    assert not any(is_running(each) for each in member.tree())
    assert is_running(sentinel)
    assert tombstone.reason == "sentinel did not end in time and was killed"
    assert (tombstone.proof, tombstone.survivors) == ("sweep", ())
    freezer.let_go()
    wait_gone([sentinel])


@needs_freezer
def test_a_task_that_sweeps_for_its_dead_sentinel_names_who_is_left(
    member: Member, freezer: Freezer
) -> None:
    """O12, O10: the same, and nobody but the task and its sweep."""
    member.start(payload=NASTY, **SHORT)
    member.wait_heard("started")
    left = member.processes["setsid"]
    freezer.hold(left.pid)
    member.kill("sentinel")
    tombstone = member.result()
    assert [each for each in member.tree() if is_running(each)] == [left]
    assert tombstone.proof == "none"
    assert [each.pid for each in tombstone.survivors] == [left.pid]
    assert tombstone.reason == "sentinel was killed by signal 9"
    assert member.claim.exists()
    freezer.let_go()
    wait_gone([left])
