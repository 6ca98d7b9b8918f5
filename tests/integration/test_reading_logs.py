"""E3, E4: an agent hands out its member's log beside its work, and depends on no reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import LogUnavailable
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberPhase, RunId
from coordinator.testing import Serving, serving
from executor_agent.member_reports import Ready
from tests.integration.membership import UNHURRIED, WORKER, Member

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def member_and_reader() -> AsyncIterator[tuple[Serving, RunId, Member, RunClient]]:
    async with serving() as coordinator:
        run_id = coordinator.create_run(UNHURRIED)
        member = Member(coordinator.address, coordinator.token, run_id)
        reader = RunClient(coordinator.address, coordinator.token)
        try:
            member.report(Ready({}))
            await coordinator.until(run_id, lambda run: run.members[0].phase.is_live)
            async with asyncio.timeout(20):
                await member.membership.delivered()
            yield coordinator, run_id, member, reader
        finally:
            reader.close()
            await member.close()


async def test_a_piece_is_read_and_the_member_works_on() -> None:
    async with member_and_reader() as (coordinator, run_id, member, reader):
        member.log = b"step 1\nstep 2\n"
        chunk = await asyncio.to_thread(reader.read_log, run_id, WORKER, None, 6)
        assert chunk == LogChunk(0, b"step 1", 14)
        assert coordinator.view(run_id).members[0].phase in (
            MemberPhase.STARTING,
            MemberPhase.READY,
        )


async def test_a_log_that_cannot_be_read_is_the_readers_trouble_alone() -> None:
    async with member_and_reader() as (_, run_id, member, reader):
        with pytest.raises(LogUnavailable, match="cannot read the log: no log"):
            await asyncio.to_thread(reader.read_log, run_id, WORKER)
        member.log = b"now"
        assert (await asyncio.to_thread(reader.read_log, run_id, WORKER)).data == b"now"
        assert not member.running.done()


async def test_several_readers_at_once_all_get_their_answer() -> None:
    async with member_and_reader() as (_, run_id, member, reader):
        member.log = b"0123456789"
        # Fewer than the threads of this loop, which reader and agent share in this test alone.
        sizes = (1, 2, 3)
        asked = [asyncio.to_thread(reader.read_log, run_id, WORKER, 0, size) for size in sizes]
        answers = await asyncio.gather(*asked)
        assert [chunk.data for chunk in answers] == [member.log[:size] for size in sizes]
