"""E3: `tflease logs` prints what members have printed, read from where it is."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from pathlib import Path

import pytest

from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.model import Cause, ExitReport, MemberId, Roles, RunSpec
from coordinator.member_client import ReservationClient
from coordinator.testing import COMPLETED, FakeGang
from tests.integration.daemon.process import Daemon, Home
from tests.integration.daemon.test_commands import gang_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def answer(daemon: Daemon, gang: FakeGang, member: str, log: bytes) -> None:
    """Attends for a member, and answers every question about its log."""
    client = ReservationClient(daemon.address, daemon.token)
    incarnation = gang[member].incarnation
    try:
        async with client.attend(gang.run_id, MemberId.parse(member), incarnation) as session:
            async for command in session.commands():
                if isinstance(command, ReadLog):
                    piece = log[-command.max_bytes :]
                    chunk = LogChunk(len(log) - len(piece), piece, len(log))
                    await session.log_chunk(command.request_id, chunk)
    finally:
        await client.close()


async def test_the_end_of_one_log_or_of_all_is_printed(daemon: Daemon, home: Home) -> None:
    async with await gang_in(daemon, RunSpec(Roles(worker=2))) as gang:
        await gang["worker:0"].reserve()
        answering = asyncio.create_task(answer(daemon, gang, "worker:0", b"one\ntwo\nthree"))
        one = await home.tflease("logs", gang.run_id[:6], "worker:0")
        assert (one.code, one.out) == (0, "one\ntwo\nthree\n")
        end = await home.tflease("logs", gang.run_id, "worker:0", "--bytes", "5")
        assert end.out == "three\n"
        every = await home.tflease("logs", gang.run_id)
        assert every.out == "==> worker:0 <==\none\ntwo\nthree\n==> worker:1 <==\n"
        assert "worker:1 has no executor yet" in every.err
        assert every.code == 1, "one of them could not be read"
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering


async def test_of_a_member_that_has_ended_the_tail_is_printed(daemon: Daemon, home: Home) -> None:
    async with await gang_in(daemon, RunSpec(Roles(worker=2))) as gang:
        await gang.form()
        await gang.enter()
        await gang["worker:0"].end(COMPLETED)
        await gang["worker:1"].end(ExitReport(Cause.USER_EXCEPTION, log_tail="last words"))
        done = await home.tflease("logs", gang.run_id, "worker:1")
        assert (done.code, done.out) == (0, "last words\n")


async def test_who_asks_for_what_is_not_there_is_told_what_is(daemon: Daemon, home: Home) -> None:
    async with await gang_in(daemon, RunSpec(Roles(worker=2))) as gang:
        done = await home.tflease("logs", gang.run_id, "ps:0")
        assert done.code == 2
        assert "has no member 'ps:0': worker:0, worker:1" in done.err
        done = await home.tflease("logs", "nothing", "worker:0")
        assert done.code == 3


async def test_a_daemon_may_open_as_many_descriptors_as_the_system_allows(daemon: Daemon) -> None:
    """Every member has a connection; a soft limit of 1,024 would end at a thousand members."""
    limits = await asyncio.to_thread(Path(f"/proc/{daemon.process.pid}/limits").read_text)
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
