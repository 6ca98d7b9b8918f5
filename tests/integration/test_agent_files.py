"""A real agent streams what its member writes, and the rest of it when the member has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.core.model import MemberPhase
from coordinator.file_client import FileClient
from coordinator.spark.event_files import EventFileMirror, whose_end_is_known
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.testing import Serving, serving
from tests.integration.agent_harness import AgentProcess
from tests.integration.grpc.files_scene import contents, eventually
from tests.integration.membership import UNHURRIED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def agent(coordinator: Serving, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """Of the only member of a new run, which has been told to start."""
    directory = tmp_path / "member"
    directory.mkdir()
    run_id = coordinator.create_run(UNHURRIED)
    agent = AgentProcess(directory, coordinator.address, coordinator.token, run_id)
    agent.start(has_log_dir=True)
    await agent.say(event="ready", versions={})
    yield agent
    agent.close()


@pytest.fixture
async def mirror(
    coordinator: Serving, agent: AgentProcess, tmp_path: Path
) -> AsyncIterator[EventFileMirror]:
    client = FileClient(coordinator.address, coordinator.token, agent.run_id)
    mirror = EventFileMirror(client, MirroredFiles(tmp_path / "mirror"))
    mirror.start()
    yield mirror
    await asyncio.to_thread(mirror.close)


async def log_dir_of(agent: AgentProcess) -> Path:
    """As the member is told."""
    start = await agent.told()
    assert start["command"] == "start"
    return Path(start["log_dir"])


async def test_all_of_it_is_there_when_the_end_of_the_run_is_known(
    coordinator: Serving, agent: AgentProcess, mirror: EventFileMirror
) -> None:
    events = await log_dir_of(agent)
    (events / "events").write_bytes(b"while it trains, ")
    await eventually(
        lambda: contents(mirror.directory) == {"worker-0/events": b"while it trains, "}, "it"
    )
    with (events / "events").open("ab") as file:
        file.write(b"and its last words")
    (events / "last").write_bytes(bytes(3_000_000))
    agent.tell_exited()
    assert await agent.asked() == {"command": "done"}
    assert await agent.exit_code() == 0
    run = coordinator.view(agent.run_id)
    assert run.members[0].phase is MemberPhase.EXITED
    assert await asyncio.to_thread(mirror.drain, whose_end_is_known(run), 20.0)
    assert contents(mirror.directory) == {
        "worker-0/events": b"while it trains, and its last words",
        "worker-0/last": bytes(3_000_000),
    }


async def test_what_an_agent_has_sent_stays_when_it_is_killed(
    agent: AgentProcess, mirror: EventFileMirror
) -> None:
    """O1: nothing is torn but the tail, and nobody waits for it."""
    events = await log_dir_of(agent)
    (events / "events").write_bytes(b"all that came")
    await eventually(
        lambda: contents(mirror.directory) == {"worker-0/events": b"all that came"}, "it"
    )
    agent.close()
    agent.pid = 0
    assert contents(mirror.directory) == {"worker-0/events": b"all that came"}
