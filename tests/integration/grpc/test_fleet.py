"""The fleet: its client processes, what they tell, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coordinator.core.model import Cause, ExitReport, MemberPhase, Roles, RunPhase, RunSpec
from coordinator.testing import (
    COMPLETED,
    STOPPED,
    FakeFleet,
    FleetFailed,
    Moment,
    Script,
    Serving,
)
from coordinator.testing.outcome import Crew, Outcome
from coordinator.testing.tally import Tally

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


def fleet_of(coordinator: Serving, roles: Roles, **options) -> FakeFleet:
    run_id = coordinator.create_run(RunSpec(roles))
    options.setdefault("processes", 2)
    return FakeFleet(coordinator.address, coordinator.token, run_id, roles, **options)


def connections_of(pids: list[int]) -> int:
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for pid in pids
        for connection in psutil.Process(pid).net_connections("tcp")
    )


def told_to_the_machine(pid: int) -> bytes:
    """What others on the machine may read of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def test_a_gang_of_several_processes_forms_works_and_ends(coordinator: Serving) -> None:
    roles = Roles(chief=1, worker=4, ps=2)
    crash = ExitReport(Cause.USER_EXCEPTION, exception_type="ValueError", message="bad labels")
    scripts = {"chief:0": Script(steps=3, works_until="done"), "worker:1": Script(report=crash)}
    async with fleet_of(coordinator, roles, scripts=scripts, processes=3) as fleet:
        assert len(set(fleet.pids)) == 3
        formed_at = await fleet.form()
        outcomes = await fleet.finish()
        moments = fleet.moments["worker:1"]
    assert outcomes["worker:1"].report == crash
    assert outcomes["ps:0"].report == outcomes["chief:0"].report == STOPPED
    assert list(moments) == list(Moment)
    assert moments[Moment.STARTED] <= formed_at
    assert outcomes["worker:1"].ended_at >= moments[Moment.ENTERED]


async def test_a_gate_lets_a_member_of_another_process_through(coordinator: Serving) -> None:
    scripts = {"worker:1": Script(joins_after="late"), "worker:0": Script(works_until="done")}
    async with fleet_of(coordinator, Roles(worker=2), scripts=scripts) as fleet:
        fleet.begin()
        await fleet.until(Moment.READY, without=["worker:1"])
        [run] = coordinator.engine.views()
        assert [member.phase for member in run.members] == [MemberPhase.READY, MemberPhase.EXPECTED]
        fleet.open("late")
        await fleet.until(Moment.ENTERED)
        assert "worker:0" not in fleet.outcomes
        fleet.open("done")
        outcomes = await fleet.finish()
    assert [outcome.report for outcome in outcomes.values()] == [COMPLETED, COMPLETED]
    assert (await coordinator.ended(run.run_id)).phase is RunPhase.SUCCEEDED


@pytest.mark.parametrize("shares, connections", [(False, 6), (True, 2)])
async def test_every_member_has_its_own_connection_unless_they_share(
    shares: bool, connections: int, coordinator: Serving
) -> None:
    roles = Roles(worker=6)
    scripts = {f"worker:{index}": Script(works_until="counted") for index in range(6)}
    async with fleet_of(coordinator, roles, scripts=scripts, shares_connections=shares) as fleet:
        await fleet.form()
        assert connections_of(fleet.pids) == connections
        fleet.open("counted")
        await fleet.finish()


async def test_who_is_late_is_named_when_the_time_is_over(coordinator: Serving) -> None:
    scripts = {"worker:2": Script(joins_after="never")}
    async with fleet_of(coordinator, Roles(worker=3), scripts=scripts) as fleet:
        fleet.begin()
        await fleet.until(Moment.READY, without=["worker:2"])
        with pytest.raises(FleetFailed) as failed:
            await fleet.form(timeout=0.1)
        with pytest.raises(FleetFailed, match=r"after 0\.1 s 3 of 3 lives have not ended"):
            await fleet.finish(timeout=0.1)
    assert "3 of 3 members have not come to STARTED" in str(failed.value)
    assert "worker:0 (last seen at READY)" in str(failed.value)
    assert "worker:2 (unseen)" in str(failed.value)


async def test_waiting_for_a_life_that_is_over_ends_at_once_and_says_why(
    coordinator: Serving,
) -> None:
    spec = RunSpec(Roles(worker=2), python_version="3.99")
    run_id = coordinator.create_run(spec)
    fleet = FakeFleet(
        coordinator.address, coordinator.token, run_id, spec.roles, python_version="3.11.1"
    )
    async with fleet:
        with pytest.raises(FleetFailed, match=r"worker:\d \(ExecutorUnfit: .*3\.99"):
            await fleet.form()
        outcomes = await fleet.finish()
    assert all(outcome.report is None for outcome in outcomes.values())


async def test_a_client_process_that_dies_ends_the_wait(coordinator: Serving) -> None:
    scripts = {"worker:1": Script(joins_after="never")}
    async with fleet_of(coordinator, Roles(worker=2), scripts=scripts) as fleet:
        fleet.begin()
        waiting = asyncio.create_task(fleet.finish())
        os.kill(fleet.pids[1], signal.SIGKILL)
        with pytest.raises(FleetFailed, match="client process 2 of 2 ended with exit code -9"):
            await waiting


async def test_the_token_is_in_no_command_line_and_no_environment(coordinator: Serving) -> None:
    async with fleet_of(coordinator, Roles(worker=2)) as fleet:
        shown = [told_to_the_machine(pid) for pid in fleet.pids]
    assert all(b"coordinator.testing.fleet_process" in told for told in shown)
    assert not any(coordinator.token.encode() in told for told in shown)


async def test_what_cannot_travel_is_refused_before_anything_is_started(
    coordinator: Serving,
) -> None:
    scripts = {"worker:0": Script(works_until=asyncio.Event())}
    with pytest.raises(ValueError, match=r"works_until is an asyncio\.Event.*name a gate"):
        fleet_of(coordinator, Roles(worker=1), scripts=scripts)
    with pytest.raises(ValueError, match="worker:7"):
        fleet_of(coordinator, Roles(worker=1), scripts={"worker:7": Script()})
    with pytest.raises(ValueError, match="processes=0"):
        fleet_of(coordinator, Roles(worker=1), processes=0)
    fleet = fleet_of(coordinator, Roles(worker=1))
    with pytest.raises(RuntimeError, match="has not been entered"):
        fleet.begin()
    await fleet.close()


# A test of somebody else's that is killed while its fleet is at work; the coordinator is ours.
KILLED_TEST = """
import asyncio, sys
from coordinator.core.model import Roles
from coordinator.testing import FakeFleet, Moment, Script

async def main(address, token, run_id):
    roles = Roles(worker=4)
    scripts = {f"worker:{index}": Script(works_until="never") for index in range(4)}
    async with FakeFleet(address, token, run_id, roles, scripts=scripts, processes=2) as fleet:
        await fleet.form()
        print(*fleet.pids, flush=True)
        await asyncio.sleep(600)

asyncio.run(main(*sys.stdin.readline().split()))
"""


async def test_nothing_is_left_of_a_fleet_whose_test_was_killed(coordinator: Serving) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=4)))
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_TEST, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert killed.stdin is not None
    assert killed.stdout is not None
    killed.stdin.write(f"{coordinator.address} {coordinator.token} {run_id}\n".encode())
    async with asyncio.timeout(60):
        processes = [psutil.Process(int(pid)) for pid in (await killed.stdout.readline()).split()]
        assert len(processes) == 2
        killed.kill()
        await killed.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=10)
    assert not alive
    assert len(gone) == 2


def test_a_client_process_that_nobody_tells_anything_ends() -> None:
    for told in (b"", b"nonsense\n", b'{"address": 1}\n'):
        done = subprocess.run(
            [sys.executable, "-m", "coordinator.testing.fleet_process"],
            cwd=ROOT,
            input=told,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert b"it is started by FakeFleet" in done.stderr


def test_a_script_travels_and_is_the_same_afterwards() -> None:
    scripts = {
        "worker:0": Script(
            joins_after="gate",
            joins_after_seconds=0.5,
            stand_by_delay=0.0,
            steps=3,
            works_until="done",
            serves=True,
            report=ExitReport(Cause.KILLED_BY_SIGNAL, signal=9, survivors=("pid 7",)),
            obeys_stop=False,
            dies_at=Moment.READY,
            silent_from=Moment.ENTERED,
            duplicates=1,
            impostors=2,
            wrong_generations=(1, 7),
            floods=4,
            half_open=5,
            half_messages=6,
        ),
        "ps:0": Script(),
        "ps:1": None,
    }
    crew = Crew("127.0.0.1:1", "secret", "run-1", 7, True, "3.11", scripts)
    assert Crew.from_line(crew.to_line()) == crew
    assert "secret" not in repr(crew)


@pytest.mark.parametrize("nonsense", [{"no_such": 1}, {"dies_at": "NEVER"}, {"report": "{}"}])
def test_what_is_no_script_is_refused(nonsense: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Script.from_dict(nonsense)


@pytest.mark.parametrize("report", [None, COMPLETED])
def test_an_outcome_travels_and_is_the_same_afterwards(report: ExitReport | None) -> None:
    outcome = Outcome("worker:0", report, "StaleIncarnation: no", 12.5, Tally(stood_by=3))
    assert Outcome.from_dict(outcome.to_dict()) == outcome
