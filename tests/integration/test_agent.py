"""The agent's process on its real descriptors, between a real coordinator, a sentinel and a
member's process that the test plays; and at the end a whole member, with nothing played."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from coordinator.core import events
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberPhase,
    Proof,
    Roles,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.testing import FakeExecutor, Serving, serving
from executor_agent.bootstrap import OUTCOME_FILE
from executor_agent.core.outcome import Outcome, Status
from executor_agent.core.supervision import MARKER_VARIABLE, anchor_died
from executor_agent.member_directory import HOME_VARIABLE
from executor_agent.spark_task import MemberTask
from tests.integration.agent_harness import AgentProcess
from tests.integration.line import line_to

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# Nothing happens by the clock: what a test sees was caused by what it did.
UNHURRIED = RunSpec(Roles(worker=1), beat_interval=60.0, liveness_ttl=120.0, fence_timeout=240.0)


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def agent(coordinator: Serving, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """Of the only member of a new run; not yet started."""
    run_id = coordinator.create_run(UNHURRIED)
    agent = AgentProcess(tmp_path, coordinator.address, coordinator.token, run_id)
    yield agent
    agent.close()


def phase_is(phase: MemberPhase) -> Callable[[RunView], bool]:
    return lambda run: run.members[0].phase is phase


async def until(coordinator: Serving, agent: AgentProcess, phase: MemberPhase) -> RunView:
    async with asyncio.timeout(30):
        return await coordinator.until(agent.run_id, phase_is(phase))


async def until_running(coordinator: Serving, agent: AgentProcess) -> dict[str, Any]:
    """What the start command was."""
    agent.start()
    await agent.say(event="ready", versions={"python": "3.11"})
    start = await agent.told()
    await agent.say(event="running")
    await until(coordinator, agent, MemberPhase.RUNNING)
    return start


async def ended(coordinator: Serving, agent: AgentProcess) -> ExitReport:
    """The report that the coordinator has got."""
    async with asyncio.timeout(30):
        run = await coordinator.ended(agent.run_id)
    report = run.members[0].exit
    assert report is not None
    return report


def sleeper(marker: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, MARKER_VARIABLE: marker}
    return subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)


async def test_a_member_that_raises_is_reported_with_its_traceback_and_log(
    coordinator: Serving, agent: AgentProcess, tmp_path: Path
) -> None:
    """E1, E3: from start to report, and the log on the executor's stderr."""
    start = await until_running(coordinator, agent)
    assert start["command"] == "start"
    assert (start["job_name"], start["task_index"], start["generation"]) == ("worker", 0, 1)
    assert (start["run_id"], start["executor_id"]) == (agent.run_id, "7")
    [address] = start["cluster_spec"]["worker"]
    assert address.startswith("127.0.0.1:")

    await agent.say(event="progress", step=3, metrics={"loss": 0.5})
    async with asyncio.timeout(30):
        run = await coordinator.until(agent.run_id, lambda run: run.members[0].step == 3)
    assert run.members[0].metrics == {"loss": 0.5}
    assert run.members[0].executor is not None
    assert run.members[0].executor.directory == str(tmp_path)

    agent.log.write_text("epoch 1\nValueError: bad labels\n")
    outcome = Outcome(Status.RAISED, "ValueError", "bad labels", "Traceback ...", exit_code=1)
    (tmp_path / OUTCOME_FILE).write_text(outcome.dumps())
    agent.tell_exited(exit_code=1)
    assert await agent.asked() == {"command": "done"}
    assert await agent.exit_code() == 0
    report = await ended(coordinator, agent)
    assert (report.cause, report.exit_code) == (Cause.USER_EXCEPTION, 1)
    assert (report.exception_type, report.message) == ("ValueError", "bad labels")
    assert report.traceback == "Traceback ..."
    assert report.log_tail == "epoch 1\nValueError: bad labels"
    assert report.proof is Proof.SWEEP
    assert agent.stderr.splitlines() == [
        "[worker:0] epoch 1",
        "[worker:0] ValueError: bad labels",
    ]


async def test_the_coordinator_s_stop_reaches_the_sentinel(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """O2."""
    await until_running(coordinator, agent)
    coordinator.engine.feed(events.StopRequested(agent.run_id, "enough of it", 2.5))
    assert await agent.asked() == {"command": "stop", "grace": 2.5, "reason": "enough of it"}
    agent.tell({"event": "stopping", "reason": "enough of it", "grace": 2.5})
    agent.tell_exited(exit_code=None, signal=15, killed_by_us=True, reason="enough of it")
    assert await agent.asked() == {"command": "done"}
    assert (await ended(coordinator, agent)).cause is Cause.STOPPED


async def test_a_reason_of_any_length_fits_into_a_datagram(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """The sentinel reads 64 KiB, and ignores what is cut off: it would never stop."""
    await until_running(coordinator, agent)
    reason = "\N{SNOWMAN}" * 100_000
    coordinator.engine.feed(events.StopRequested(agent.run_id, reason, 0.0))
    asked = await agent.asked()
    assert asked is not None
    assert asked["command"] == "stop"
    assert reason.startswith(asked["reason"])


async def test_a_dead_sentinel_has_the_agent_sweep_and_report(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """O1, O5: the kernel has killed the member's group; a descendant of its own session lives."""
    left, lookalike = sleeper(agent.config.marker), sleeper(agent.config.marker + "0")
    try:
        await until_running(coordinator, agent)
        agent.control.close()
        assert await agent.exit_code() == 0
        assert left.wait(30) == -signal.SIGKILL
        assert lookalike.poll() is None  # O7
        report = await ended(coordinator, agent)
        assert report.cause is Cause.PREEMPTED
        assert "sentinel" in report.reason
        assert report.proof is Proof.SWEEP
    finally:
        for process in (left, lookalike):
            process.kill()
            process.wait()


async def test_a_process_that_fails_before_the_slot_is_reserved_is_reported(
    coordinator: Serving, agent: AgentProcess, tmp_path: Path
) -> None:
    """E1: a module that cannot be imported fails faster than the agent connects."""
    outcome = Outcome(Status.PRELOAD_FAILED, "ImportError", "cannot import 'x'", exit_code=3)
    (tmp_path / OUTCOME_FILE).write_text(outcome.dumps())
    agent.start()
    agent.tell_exited(exit_code=3)
    report = await ended(coordinator, agent)
    assert (report.cause, report.message) == (Cause.PRELOAD_FAILED, "cannot import 'x'")
    assert await agent.exit_code() == 0


async def test_a_lost_executor_is_no_failure_of_the_program(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """E2."""
    await until_running(coordinator, agent)
    agent.tell_exited(exit_code=None, signal=9, reason=anchor_died("executor"))
    report = await ended(coordinator, agent)
    assert (report.cause, report.reason) == (Cause.PREEMPTED, "executor died")


async def test_who_cannot_reach_the_coordinator_asks_for_its_end_and_says_why(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """R1."""
    async with line_to(coordinator.address) as line:
        line.is_up = False
        agent.start(coordinator=line.address, connect_timeout=0.2)
        asked = await agent.asked()
        assert asked is not None
        assert (asked["command"], asked["grace"]) == ("stop", 0.0)
        assert f"the coordinator at {line.address} could not be reached" in asked["reason"]
    agent.tell_exited(exit_code=0, reason=asked["reason"])
    assert await agent.asked() == {"command": "done"}
    assert await agent.exit_code() == 0


async def test_a_name_that_leads_nowhere_is_an_end_with_a_reason(agent: AgentProcess) -> None:
    agent.start(coordinator="no-such-host.invalid:7077", connect_timeout=0.0)
    asked = await agent.asked()
    assert asked is not None
    here = socket.gethostname()
    assert f"{here} cannot resolve 'no-such-host.invalid'" in asked["reason"]
    assert "the coordinator at no-such-host.invalid:7077" in asked["reason"]
    agent.tell_exited(reason=asked["reason"])
    assert await agent.exit_code() == 0


async def test_a_second_attempt_that_is_stopped_while_it_stands_by_is_not_waited_for(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """R4: speculation. Nobody counts on its report."""
    run_id = agent.run_id
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as first:
        await first.reserve()
        await first.attend()
        agent.start()
        agent.tell_exited(reason="task died")
        assert await agent.asked() == {"command": "done"}
        assert coordinator.view(run_id).members[0].phase is MemberPhase.RESERVED


async def test_nonsense_of_the_member_costs_nothing_but_itself(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """User code has a hand in what is reported."""
    await until_running(coordinator, agent)
    for step in ("many", 2**63, -1, None, [1]):
        await agent.say(event="progress", step=step, metrics={})
    for metrics in ("high", {"loss": "high"}, {"loss": None}, [1], None):
        await agent.say(event="progress", step=1, metrics=metrics)
    await agent.say(event="ready", versions=None)
    await agent.say(event="of a newer version")
    await agent.say(event="progress", step=2, metrics={"loss": float("nan"), "\udcff": 1.0})
    async with asyncio.timeout(30):
        run = await coordinator.until(agent.run_id, lambda run: run.members[0].step == 2)
    assert run.members[0].phase is MemberPhase.RUNNING
    agent.tell_exited()
    assert await agent.exit_code() == 0
    assert agent.stderr.count("ignored") == 1


async def test_bytes_that_are_no_messages_are_told_and_the_end_is_still_reported(
    coordinator: Serving, agent: AgentProcess
) -> None:
    await until_running(coordinator, agent)
    await agent.say_raw(b"\xff\xff\xff\xff and more")
    agent.tell_exited(exit_code=None, signal=11)
    report = await ended(coordinator, agent)
    assert (report.cause, report.signal) == (Cause.KILLED_BY_SIGNAL, 11)
    assert await agent.exit_code() == 0
    assert "does not speak this protocol" in agent.stderr


async def test_a_member_that_never_says_a_word_is_reported_all_the_same(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """E1."""
    agent.start()
    await until(coordinator, agent, MemberPhase.RESERVED)
    agent.channel.close()
    agent.tell_exited(exit_code=None, signal=9)
    report = await ended(coordinator, agent)
    assert (report.cause, report.signal) == (Cause.KILLED_BY_SIGNAL, 9)


async def test_what_the_sentinel_says_and_nobody_understands_is_not_the_end(
    coordinator: Serving, agent: AgentProcess
) -> None:
    agent.start()
    await until(coordinator, agent, MemberPhase.RESERVED)
    for broken in (b"{", b"[]", b'{"event": "exited"}', b'{"event": "of a newer version"}'):
        agent.control.send(broken)
    agent.tell_exited()
    assert await agent.asked() == {"command": "done"}
    assert await agent.exit_code() == 0


async def test_a_report_that_cannot_be_delivered_is_not_waited_for_long(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """The sentinel kills an agent that takes more than 3 s; the log is copied meanwhile."""
    async with line_to(coordinator.address) as line:
        agent.start(coordinator=line.address)
        await until(coordinator, agent, MemberPhase.RESERVED)
        line.freeze()
        agent.log.write_text("the last words\n")
        began = asyncio.get_running_loop().time()
        agent.tell_exited(exit_code=1)
        assert await agent.asked() == {"command": "done"}
        assert asyncio.get_running_loop().time() - began < 3.0
        assert await agent.exit_code() == 0
    assert "[worker:0] the last words\n" in agent.stderr
    assert "agent: could not report the end" in agent.stderr


# -- a whole member --------------------------------------------------------------------------


def task_of(coordinator: Serving, run_id: str, main_fun: Callable[..., Any]) -> MemberTask:
    return MemberTask(
        members=("worker:0",),
        run_id=run_id,
        coordinator=coordinator.address,
        token=coordinator.token,
        payload=cloudpickle.dumps((main_fun, {"x": 20})),
        grace={"worker": 5.0},
        preload=("json",),
        connect_timeout=20.0,
        env={"MINE": "22"},
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    return home


async def test_a_whole_member_from_the_task_to_its_row(coordinator: Serving, home: Path) -> None:
    """Sentinel, agent and the user's process, all real; only Spark is missing."""

    def main_fun(args: Any, ctx: Any) -> int:
        import os

        ctx.report_progress(1, loss=0.5)
        return int(args["x"]) + int(os.environ["MINE"])

    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    task = task_of(coordinator, run_id, main_fun)
    row = await asyncio.to_thread(task._run, "worker:0", "attempt-1", 1)
    run = coordinator.view(run_id)
    assert run.phase is RunPhase.SUCCEEDED
    assert run.members[0].step == 1
    assert cloudpickle.loads(row["result"]) == 42
    report = ExitReport.from_json(row["report"])
    assert (report.cause, report.proof) == (Cause.COMPLETED, Proof.KERNEL)
    [directory] = (home / run_id).iterdir()
    assert not (directory / "local").exists()


async def test_a_whole_member_of_a_run_that_is_over_ends_at_once(
    coordinator: Serving, home: Path
) -> None:
    """R2: a task that Spark schedules too late must not hold its slot."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    coordinator.engine.feed(events.StopRequested(run_id, "enough", None))
    task = task_of(coordinator, run_id, print)
    row = await asyncio.to_thread(task._run, "worker:0", "attempt-1", 1)
    report = ExitReport.from_json(row["report"])
    assert "refused by the coordinator" in report.reason
    assert "nothing to join" in report.reason
    assert report.proof is Proof.KERNEL
    assert row["result"] is None
