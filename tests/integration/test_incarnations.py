"""A Spark task that starts its member once more when its run is restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from coordinator.core.model import Cause, ExitReport, Proof, Role, Roles, RunPhase, RunSpec
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.testing import FakeExecutor, Serving, serving
from executor_agent.claims import read_all
from executor_agent.core.claim import AGENT
from executor_agent.jvm_connection import JvmConnection
from executor_agent.linux import boot_id
from executor_agent.member_directory import HOME_VARIABLE
from tests.integration.gpu_members import DEADLINE, until
from tests.integration.looping_tasks import LoopingTasks, looping_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ONE = RunSpec(
    Roles(worker=1),
    restart=RestartPolicy(max_restarts=2, backoff=0.0),
    grace={Role.CHIEF: 0.0, Role.WORKER: 0.2, Role.PS: 0.0},
)
TWO = replace(ONE, roles=Roles(worker=2))


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    return home


def end_of(row: dict[str, Any]) -> tuple[Cause, str]:
    report = ExitReport.from_json(row["report"])
    assert report.proof is Proof.KERNEL
    return report.cause, row["incarnation"]


def neighbour(*who: Any) -> FakeExecutor:
    """A member of the same host, which may advertise an address of this host alone."""
    made = FakeExecutor(*who, hostname=socket.gethostname())
    made.info = replace(made.info, boot_id=boot_id())
    return made


async def enter(member: FakeExecutor) -> None:
    """Of a gang that forms meanwhile."""
    async with asyncio.timeout(DEADLINE):
        await member.reserve()
        await member.attend()
        await member.ready()
        await member.started()
        await member.enter()


def directories(home: Path, tasks: LoopingTasks) -> list[str]:
    return sorted(each.name for each in (home / tasks.run_id).iterdir())


async def test_a_member_that_is_killed_is_started_once_more_by_its_task(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    """E2: the next generation at the same address, and one row."""
    async with looping_tasks(coordinator, tmp_path / "run", ONE) as tasks:
        tasks.start()
        first = await tasks.kill("worker:0")
        row = await tasks.row()
        second = await tasks.place("worker:0", 2)
    assert end_of(row) == (Cause.COMPLETED, "0-w.2")
    assert cloudpickle.loads(row["result"]) == second
    assert second["cluster"] == first["cluster"]
    run = coordinator.view(tasks.run_id)
    assert run.phase is RunPhase.SUCCEEDED
    assert [each.cause for each in run.restarts] == [Cause.KILLED_BY_SIGNAL]
    assert directories(home, tasks) == ["worker-0.0-w", "worker-0.0-w.2"]
    assert list((home / "claims").iterdir()) == []


@pytest.mark.parametrize("obeys", [True, False])
async def test_who_is_stopped_because_of_another_is_started_once_more_too(
    coordinator: Serving, home: Path, tmp_path: Path, obeys: bool
) -> None:
    """Who obeys returns, which is no completion this time."""
    arguments = {"obeys": obeys}
    async with looping_tasks(coordinator, tmp_path / "run", TWO, arguments=arguments) as tasks:
        tasks.start()
        await tasks.place("worker:1", 1)
        await tasks.kill("worker:0")
        rows = [await tasks.row("worker:0"), await tasks.row("worker:1")]
    assert [end_of(row) for row in rows] == [
        (Cause.COMPLETED, "0-w.2"),
        (Cause.COMPLETED, "1-w.2"),
    ]
    run = coordinator.view(tasks.run_id)
    assert (run.phase, run.generation, run.restart_count) == (RunPhase.SUCCEEDED, 2, 1)


async def test_a_member_that_stalls_is_started_once_more(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    """E4: its agent says where it stood."""
    spec = replace(ONE, stall=StallTimeouts(step=0.5))
    arguments = {"reports": True}
    async with looping_tasks(coordinator, tmp_path / "run", spec, arguments=arguments) as tasks:
        tasks.start()
        row = await tasks.row()
    assert end_of(row) == (Cause.COMPLETED, "0-w.2")
    [restart] = coordinator.view(tasks.run_id).restarts
    assert restart.cause is Cause.STALLED
    assert "telling" in restart.summary


async def test_a_worker_under_parameter_servers_comes_back_alone_at_its_address(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    spec = replace(ONE, roles=Roles(chief=1, ps=1, worker=1))
    address, token = coordinator.address, coordinator.token
    async with looping_tasks(coordinator, tmp_path / "run", spec) as tasks:
        others = [
            neighbour(address, token, tasks.run_id, "chief:0"),
            neighbour(address, token, tasks.run_id, "ps:0"),
        ]
        tasks.start("worker:0")
        await asyncio.gather(*map(enter, others))
        first = await tasks.kill("worker:0")
        second = await tasks.place("worker:0", 1, without=first["pid"])
        assert second["cluster"] == first["cluster"]
        run = coordinator.view(tasks.run_id)
        assert (run.phase, run.generation, run.restart_count) == (RunPhase.RUNNING, 1, 1)
        tasks.stop()
        for other in others:
            await other.close()
        row = await tasks.row()
    assert end_of(row)[1] == "0-w.2"


async def test_the_row_of_the_last_one_that_had_the_slot_is_returned(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    """The budget is used up: who comes after that finds the run over, and leaves no row."""
    spec = replace(ONE, restart=RestartPolicy(max_restarts=1, backoff=0.0))
    async with looping_tasks(coordinator, tmp_path / "run", spec, arguments={"waits": 9}) as tasks:
        tasks.start()
        await tasks.kill("worker:0", 1)
        await tasks.kill("worker:0", 2)
        row = await tasks.row()
    assert end_of(row) == (Cause.KILLED_BY_SIGNAL, "0-w.2")
    assert coordinator.view(tasks.run_id).phase is RunPhase.FAILED
    assert directories(home, tasks) == ["worker-0.0-w", "worker-0.0-w.2", "worker-0.0-w.3"]


async def test_nothing_is_started_once_more_where_nobody_has_asked_for_it(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    async with looping_tasks(coordinator, tmp_path / "run", ONE, restart_causes=()) as tasks:
        tasks.start()
        await tasks.kill("worker:0")
        row = await tasks.row()
        await tasks.until(RunPhase.FORMING)  # the coordinator would take it, in another task
    assert end_of(row) == (Cause.KILLED_BY_SIGNAL, "0-w")
    assert directories(home, tasks) == ["worker-0.0-w"]


async def test_an_end_that_the_coordinator_does_not_know_of_is_told_by_the_row(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    """O5: the agent is killed. The next one would wait for a slot that nobody gives up."""
    async with looping_tasks(coordinator, tmp_path / "run", ONE) as tasks:
        tasks.start()
        await tasks.place("worker:0", 1)
        [(_, claim)] = read_all(home / "claims")
        os.kill(claim.processes[AGENT][0], signal.SIGKILL)
        row = await tasks.row()
    assert end_of(row) == (Cause.AGENT_LOST, "0-w")


class DroppedConnection:
    """The JVM's side of the task is over."""

    is_closed = False

    def peer(self) -> None:
        """Nobody known."""


async def test_a_task_that_spark_has_dropped_starts_nobody(
    coordinator: Serving, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jvm = DroppedConnection()
    monkeypatch.setattr(JvmConnection, "of_this_worker", lambda: jvm)
    async with looping_tasks(coordinator, tmp_path / "run", ONE) as tasks:
        tasks.start()
        await tasks.place("worker:0", 1)
        jvm.is_closed = True
        await tasks.kill("worker:0")
        row = await tasks.row()
    assert end_of(row)[1] == "0-w"
    assert directories(home, tasks) == ["worker-0.0-w"]


# -- a task that is ended ----------------------------------------------------------------------


async def end_of_process(process: subprocess.Popen[str]) -> str:
    """What it said last."""
    said, _ = await asyncio.to_thread(process.communicate, timeout=DEADLINE)
    return str(said).strip()


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "interrupted"), (signal.SIGKILL, "")])
async def test_a_task_that_is_ended_takes_the_second_incarnation_along(
    coordinator: Serving, home: Path, tmp_path: Path, number: signal.Signals, said: str
) -> None:
    """O1, O3."""
    async with looping_tasks(coordinator, tmp_path / "run", ONE, arguments={"waits": 9}) as tasks:
        process = tasks.start_process("worker:0")
        await tasks.kill("worker:0")
        await tasks.place("worker:0", 2)
        process.send_signal(number)
        assert await end_of_process(process) == said
        await until(lambda: list((home / "claims").iterdir()) == [], "nobody to be left")
    assert directories(home, tasks) == ["worker-0.0-w", "worker-0.0-w.2"]


async def test_a_task_that_is_interrupted_while_its_member_stands_by_starts_nobody_else(
    coordinator: Serving, home: Path, tmp_path: Path
) -> None:
    """O3: another member takes its time to end."""
    async with looping_tasks(coordinator, tmp_path / "run", TWO) as tasks:
        who = (coordinator.address, coordinator.token, tasks.run_id, "worker:1")
        async with neighbour(*who) as other:
            process = tasks.start_process("worker:0")
            await enter(other)
            await tasks.kill("worker:0")
            stop = await other.told_to_stop()
            assert stop.again
            stands_by = home / tasks.run_id / "worker-0.0-w.2" / "ports.json"
            await until(stands_by.exists, "the second incarnation to ask for its slot")
            process.send_signal(signal.SIGINT)
            assert await end_of_process(process) == "interrupted"
            assert list((home / "claims").iterdir()) == []
    assert directories(home, tasks) == ["worker-0.0-w", "worker-0.0-w.2"]
