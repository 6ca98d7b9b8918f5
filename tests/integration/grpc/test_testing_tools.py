"""The testing tools that users get: each behaviour of a fake, as the coordinator sees it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import testing
from coordinator.core import events
from coordinator.core.errors import CoordinatorUnavailable, Unauthenticated
from coordinator.core.model import Cause, ExitReport, MemberPhase, Roles, RunPhase, RunSpec
from coordinator.engine import Engine
from coordinator.testing import (
    COMPLETED,
    STOPPED,
    FakeExecutor,
    FakeGang,
    ManualClock,
    Moment,
    Script,
    Serving,
    drive,
    serving,
)

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[3]


def member_phases(coordinator: Serving, gang: FakeGang) -> list[MemberPhase]:
    return [member.phase for member in coordinator.view(gang.run_id).members]


def test_every_tool_explains_itself_to_help() -> None:
    for name in testing.__all__:
        assert (getattr(testing, name).__doc__ or "").strip(), name


@pytest.mark.slow
def test_the_tools_need_neither_spark_nor_tensorflow_nor_the_agent() -> None:
    code = "import coordinator.testing, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"pyspark", "tensorflow", "executor_agent", "pytest"}


async def test_a_late_member_joins_when_it_is_let(coordinator: Serving, gang_of) -> None:
    late = asyncio.Event()
    gang = await gang_of(coordinator, Roles(worker=2))
    living = asyncio.create_task(gang.live({"worker:1": Script(joins_after=late)}))
    ready = [MemberPhase.READY, MemberPhase.EXPECTED]
    await coordinator.until(gang.run_id, lambda run: [m.phase for m in run.members] == ready)
    late.set()
    assert await living == {"worker:0": COMPLETED, "worker:1": COMPLETED}


async def test_steps_are_reported_and_the_report_of_the_script_ends_it(
    coordinator: Serving,
) -> None:
    crash = ExitReport(Cause.USER_EXCEPTION, exception_type="ValueError", message="bad labels")
    run = await drive(
        coordinator, RunSpec(Roles(worker=1)), {"worker:0": Script(steps=3, report=crash)}
    )
    assert run.members[0].step == 3
    assert run.failure.exit == crash


async def test_a_member_works_until_it_is_let_go_or_told_to_stop(
    coordinator: Serving, gang_of
) -> None:
    done = asyncio.Event()
    gang = await gang_of(coordinator, Roles(chief=1, worker=1, ps=1))
    scripts = {"chief:0": Script(works_until=done), "worker:0": Script(works_until=asyncio.Event())}
    living = asyncio.create_task(gang.live(scripts))
    running = [MemberPhase.RUNNING] * 3
    await coordinator.until(gang.run_id, lambda run: [m.phase for m in run.members] == running)
    done.set()
    assert await living == {"chief:0": COMPLETED, "worker:0": STOPPED, "ps:0": STOPPED}
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.SUCCEEDED


@pytest.mark.parametrize("moment", Moment)
async def test_a_member_that_dies_is_lost_whenever_that_is(
    moment: Moment, timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, Roles(worker=1), beating=False)
    assert await gang["worker:0"].live(Script(dies_at=moment)) is None
    clock.advance(15)
    assert member_phases(timeless, gang) == [MemberPhase.LOST]
    with pytest.raises(RuntimeError, match="attend first"):
        await gang["worker:0"].beat()


@pytest.mark.parametrize("moment", [Moment.ATTENDING, Moment.READY, Moment.ENTERED])
async def test_a_silent_member_is_lost_with_its_connection_open(
    moment: Moment, timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, Roles(worker=1))
    worker = gang["worker:0"]
    assert await worker.live(Script(silent_from=moment)) is None
    clock.advance(15)
    assert member_phases(timeless, gang) == [MemberPhase.LOST]
    if moment is not Moment.ENTERED:
        return
    assert (await worker.told_to_stop()).reason  # it hears, and does nothing


async def test_a_member_that_ignores_its_stop_goes_on_beating(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, Roles(worker=1))
    worker = gang["worker:0"]
    living = asyncio.create_task(worker.live(Script(serves=True, obeys_stop=False)))
    await timeless.until(gang.run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING)
    timeless.engine.feed(events.StopRequested(gang.run_id, "enough"))
    assert await living is None
    await worker.beat()
    assert member_phases(timeless, gang) == [MemberPhase.RUNNING]


async def test_a_member_that_finds_the_run_over_has_nothing_to_do(coordinator: Serving) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    coordinator.engine.feed(events.StopRequested(run_id, "enough"))
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as worker:
        assert await worker.live() is None


async def test_a_duplicate_stands_by_until_the_first_is_gone(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    first = gang["worker:0"]
    await first.reserve()
    await first.attend()
    async with first.copy() as second:
        living = asyncio.create_task(second.live(Script(stand_by_delay=0)))
        await first.end(ExitReport(Cause.PREEMPTED))
        assert await living == COMPLETED


async def test_a_liar_with_a_forged_token_is_refused(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    async with gang["worker:0"].copy(token="forged") as liar:
        with pytest.raises(Unauthenticated):
            await liar.reserve()


async def test_scripts_for_members_that_do_not_exist_are_refused(
    coordinator: Serving,
) -> None:
    with pytest.raises(ValueError, match="worker:7"):
        await drive(coordinator, RunSpec(Roles(worker=1)), {"worker:7": Script()})


async def test_waiting_for_what_cannot_come_any_more_fails(coordinator: Serving) -> None:
    run = await drive(coordinator, RunSpec(Roles(worker=1)))
    with pytest.raises(AssertionError, match="the run ended before that"):
        await coordinator.until(run.run_id, lambda run: run.phase is RunPhase.FORMING)


async def test_a_member_without_a_coordinator_is_told_so_at_its_next_step() -> None:
    async with serving() as coordinator:
        run_id = coordinator.create_run(RunSpec(Roles(worker=2)))
        worker = FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0")
        await worker.reserve()
        await worker.attend()
    with pytest.raises(CoordinatorUnavailable):
        await worker.started()
    await worker.close()
    await worker.close()


async def test_time_passes_only_when_the_test_says_so(
    timeless: Serving, clock: ManualClock
) -> None:
    before = clock()
    run_id = timeless.create_run(RunSpec(Roles(worker=1), reservation_timeout=60))
    assert clock() == before
    clock.advance(59.5)
    assert timeless.view(run_id).phase is RunPhase.FORMING
    clock.advance(0.5)
    assert clock() == before + 60
    assert (await timeless.ended(run_id)).phase is RunPhase.FAILED


async def test_a_fixture_with_an_engine_of_ones_own() -> None:
    clock = ManualClock()
    engine = Engine(clock)
    async with serving(engine, token="known", clock=clock) as running:
        assert (running.engine, running.token) == (engine, "known")
        assert (await drive(running, RunSpec(Roles(worker=1)))).phase is RunPhase.SUCCEEDED


@pytest.mark.slow
def test_the_examples_in_the_documentation_are_true(tmp_path: Path) -> None:
    """Every Python block of docs/testing.md, run by pytest as a user would."""
    text = (ROOT / "docs" / "testing.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert blocks
    (tmp_path / "test_documentation.py").write_text("\n\n".join(blocks))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\npythonpath = {ROOT}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
