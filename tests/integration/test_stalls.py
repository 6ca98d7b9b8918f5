"""Alive but stuck (E5): found, named with the place where it stands, and told from who waits for
it. A real coordinator, real agents and processes; only Spark is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.model import Cause, Failure, MemberId, Role, Roles, RunPhase, RunSpec
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.testing import Serving, serving
from executor_agent.member_directory import HOME_VARIABLE
from tests.integration.gpu_members import _by_value
from tests.integration.looping_tasks import looping_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

GRACE = {Role.CHIEF: 0.0, Role.WORKER: 0.2, Role.PS: 0.0}
ENDS = 180.0  # seconds


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))


def read_batch(number: int) -> None:
    """Of a data source that does not answer any more."""
    import time

    while number == 4:
        time.sleep(600)


def reduces(args: Any, ctx: Any) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", 1.0))

    for number in range(1, 100):
        if ctx.task_index == 1:
            read_batch(number)
        step()
        ctx.report_progress(number)


async def failure_of(coordinator: Serving, tmp_path: Path, spec: RunSpec, **task: Any) -> Failure:
    async with looping_tasks(
        coordinator, tmp_path / "tasks", spec, restart_causes=(), **task
    ) as tasks:
        tasks.start()
        async with asyncio.timeout(ENDS):
            view = await coordinator.ended(tasks.run_id)
    assert view.phase is RunPhase.FAILED
    assert view.failure is not None
    return view.failure


@pytest.mark.tensorflow
async def test_the_rank_that_is_behind_is_named_and_not_who_waits_for_it(
    coordinator: Serving, tmp_path: Path
) -> None:
    """A hang in front of a collective: all members are late together."""
    spec = RunSpec(Roles(worker=2), stall=StallTimeouts(step=3.0), grace=GRACE)
    failure = await failure_of(
        coordinator, tmp_path, spec, payload=_by_value(reduces, None), preload=("tensorflow",)
    )
    print(failure.summary, failure.exit and failure.exit.traceback, *failure.others, sep="\n")
    assert (failure.cause, failure.member) == (Cause.STALLED, MemberId(Role.WORKER, 1))
    assert "no progress for" in failure.summary
    assert "in section 'step' at step 3" in failure.summary
    assert "test_stalls.py" in failure.summary
    assert "(read_batch)" in failure.summary
    assert failure.exit is not None
    assert " in reduces\n" in failure.exit.traceback
    [other] = failure.others
    assert "worker:0: no progress either" in other
    assert "(reduces)" in other or "(step)" in other


def sleeps_in_a_section(args: Any, ctx: Any) -> str:
    import time

    ctx.report_progress(1)
    with ctx.section(args["section"]):
        time.sleep(args["seconds"])
    return "came back"


async def test_a_section_has_its_own_timeout(coordinator: Serving, tmp_path: Path) -> None:
    spec = RunSpec(Roles(worker=1), stall=StallTimeouts(step=60.0, evaluation=0.5), grace=GRACE)
    arguments = {"section": "evaluation", "seconds": 600.0}
    failure = await failure_of(
        coordinator, tmp_path, spec, payload=_by_value(sleeps_in_a_section, arguments)
    )
    assert failure.cause is Cause.STALLED
    assert "in section 'evaluation' at step 1" in failure.summary
    assert "(sleeps_in_a_section)" in failure.summary


@pytest.mark.parametrize("section", ["idle", "checkpoint"])
async def test_who_is_in_a_section_has_the_time_of_that_section(
    coordinator: Serving, tmp_path: Path, section: str
) -> None:
    """Four times as long as a step may take."""
    spec = RunSpec(Roles(worker=1), stall=StallTimeouts(step=0.5, checkpoint=60.0), grace=GRACE)
    payload = _by_value(sleeps_in_a_section, {"section": section, "seconds": 2.0})
    async with looping_tasks(coordinator, tmp_path / "tasks", spec, payload=payload) as tasks:
        tasks.start()
        async with asyncio.timeout(ENDS):
            view = await coordinator.ended(tasks.run_id)
    assert view.phase is RunPhase.SUCCEEDED
