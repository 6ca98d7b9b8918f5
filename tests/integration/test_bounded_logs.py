"""E3, E4: an agent bounds its member's log while the member prints, and readers lose no offset."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.client import RunClient
from coordinator.core.model import MemberPhase, Roles, RunSpec
from coordinator.testing import serving
from executor_agent.bounded_log import VARIABLE
from tests.integration.agent_harness import AgentProcess
from tests.integration.membership import WORKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LIMIT = 1024 * 1024
LINE = b"%09d\n"
UNHURRIED = RunSpec(Roles(worker=1), beat_interval=60.0, liveness_ttl=120.0, fence_timeout=240.0)


@pytest.fixture
async def agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[AgentProcess, RunClient]]:
    monkeypatch.setenv(VARIABLE, str(LIMIT))
    async with serving() as coordinator:
        run_id = coordinator.create_run(UNHURRIED)
        agent = AgentProcess(tmp_path, coordinator.address, coordinator.token, run_id)
        try:
            agent.start()
            with closing(RunClient(coordinator.address, coordinator.token)) as reader:
                await agent.say(event="ready", versions={})
                await agent.told()
                await agent.say(event="running")
                async with asyncio.timeout(30):
                    await coordinator.until(
                        run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING
                    )
                yield agent, reader
        finally:
            agent.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 other processes tell nobody
            await asyncio.sleep(0.01)


def on_disk(agent: AgentProcess) -> int:
    return agent.log.stat().st_blocks * 512


async def test_a_member_that_prints_without_end_does_not_fill_the_disk(
    agent: tuple[AgentProcess, RunClient],
) -> None:
    process, reader = agent
    data = b"".join(LINE % number for number in range(1_000_000))
    member = os.open(process.log, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(member, data)
        await eventually(lambda: on_disk(process) < 2 * LIMIT)
    finally:
        os.close(member)
    assert process.log.stat().st_size == len(data), "every byte keeps its offset"
    first = await asyncio.to_thread(reader.read_log, process.run_id, WORKER, 0, 4096)
    assert first.size == len(data)
    assert first.offset is not None
    assert len(data) - 2 * LIMIT < first.offset <= len(data) - LIMIT
    assert first.data == data[first.offset : first.offset + 4096]
    last = await asyncio.to_thread(reader.read_log, process.run_id, WORKER, len(data) - 10, 4096)
    assert last.data == b"000999999\n"
    await eventually(lambda: "[worker:0] 000999999" in process.stderr)
