"""What a list of runs holds, what it leaves to the question for one, and what fits into that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from coordinator import run_pictures
from coordinator.client import RunClient
from coordinator.core.errors import LimitExceeded
from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    Failure,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.engine import Engine
from coordinator.limits import Limits
from coordinator.member_client import ReservationClient
from coordinator.run_pictures import RunPictures
from coordinator.testing import Serving
from coordinator.v1 import model_pb2 as pb
from tests.integration.grpc.conftest import MakeGang

CRASH = ExitReport(
    Cause.USER_EXCEPTION,
    exception_type="ValueError",
    message="bad labels" + "!" * 8000,
    traceback="Traceback ...",
    log_tail="the last lines",
)


class Runs:
    """An engine, as far as it is looked at."""

    wall_offset = 0.0

    def __init__(self, *runs: RunView) -> None:
        self.runs = list(runs)
        self.viewed = 0

    def run_ids(self) -> list[RunId]:
        return [run.run_id for run in self.runs]

    def view(self, run_id: RunId) -> RunView:
        self.viewed += 1
        return next(run for run in self.runs if run.run_id == run_id)


def pictures(*runs: RunView) -> RunPictures:
    return RunPictures(cast("Engine", Runs(*runs)))


def large(size: int, report: ExitReport, *, first: int = 0, more: str = "") -> RunView:
    """A gang that has failed as one. ``more``: what agents may tell of their executors."""
    executor = ExecutorInfo("node", "boot", 1, directory=more, leftovers=(more,))
    members = tuple(
        MemberView(
            MemberId(Role.WORKER, index),
            MemberPhase.EXITED,
            phase_at=1.0,
            incarnation=IncarnationId(f"attempt-{index}"),
            executor=executor,
            exit=report,
        )
        for index in range(size)
    )
    others = tuple(f"{each.id} raised ValueError: {report.message}" for each in members[1:])
    failure = Failure(report.cause, "it raised", members[first].id, report, others)
    spec = RunSpec(Roles(worker=size))
    return RunView(RunId("big"), spec, RunPhase.FAILED, 1, members, 1.0, 9, failure)


def has_all(report: pb.ExitReport) -> bool:
    return bool(report.traceback and report.log_tail)


@pytest.mark.parametrize("more", ["", "\u00e9" * 30_000], ids=["usual", "talkative agents"])
async def test_the_largest_gang_fits_into_a_message_with_its_first_cause(more: str) -> None:
    """E1. Ten thousand members that all fail with all that an agent reports."""
    report = ExitReport(
        Cause.USER_EXCEPTION,
        exception_type="ValueError",
        message="\u00e9" * 8 * 1024,
        traceback="\u00e9" * 16 * 1024,
        log_tail="\u00e9" * 32 * 1024,
    )
    run = large(10_000, report, first=7_000, more=more)
    told = await pictures(run).picture(run)
    assert told.ByteSize() < Limits().answer_bytes
    assert told.failure.exit.traceback == report.traceback
    assert told.failure.exit.log_tail == report.log_tail
    assert len(told.failure.others) == 9_999
    assert [each.id.index for each in told.members] == list(range(10_000))
    assert all(each.exit.exception_type == "ValueError" for each in told.members)
    assert has_all(told.members[7_000].exit)
    assert has_all(told.members[0].exit)
    assert not has_all(told.members[9_999].exit)


async def test_reports_of_those_that_failed_come_first() -> None:
    run = large(3, CRASH)
    stopped = replace(CRASH, cause=Cause.STOPPED)
    members = (replace(run.members[0], exit=stopped), *run.members[1:])
    run = replace(run, members=members, failure=None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_pictures, "MOST_REPORTS", 2 * len(CRASH.message))
        told = await pictures(run).picture(run)
    assert [has_all(each.exit) for each in told.members] == [False, True, True]
    assert told.members[0].exit.message == CRASH.message[:500]


async def test_a_list_of_the_largest_runs_fits_into_a_message() -> None:
    one = large(10_000, ExitReport(Cause.STOPPED), more="x" * 1_000)
    gpus = tuple(f"GPU-{number:036}" for number in range(8))
    members = tuple(replace(each, gpus=gpus) for each in one.members)
    one = replace(one, members=members)
    runs = [replace(one, run_id=RunId(f"ended-{number}")) for number in range(20)]
    alive = [replace(one, run_id=RunId(f"alive-{n}"), phase=RunPhase.STOPPING) for n in range(2)]
    listed = await pictures(*alive, *runs).listing()
    assert [each.run_id for each in listed] == [each.run_id for each in (*alive, *runs)]
    assert sum(each.ByteSize() for each in listed) < Limits().answer_bytes
    assert {each.phase for each in listed[2:]} == {pb.RUN_PHASE_FAILED}
    assert len(listed[0].members) == len(listed[-1].members) == 10_000
    assert len(listed[2].members) == 0  # the oldest of those that are over


async def test_a_run_that_has_ended_is_looked_at_once() -> None:
    runs = Runs(large(3, CRASH), replace(large(3, CRASH), run_id=RunId("b")))
    listed = RunPictures(cast("Engine", runs))
    assert await listed.listing() == await listed.listing()
    assert runs.viewed == 2
    runs.runs = [replace(run, run_id=RunId("c"), phase=RunPhase.STOPPING) for run in runs.runs[:1]]
    for _ in range(2):
        assert [each.run_id for each in await listed.listing()] == ["c"]
    assert runs.viewed == 4


async def test_a_list_leaves_out_logs_and_tracebacks_which_one_run_has(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    """A daemon remembers a hundred runs: with them the list would not fit into a message, and no
    run could be found to be stopped."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    await gang.enter()
    await gang["worker:0"].end(CRASH)
    await coordinator.ended(gang.run_id)
    client = RunClient(coordinator.address, coordinator.token)
    (listed,) = await asyncio.to_thread(client.list)
    whole = await asyncio.to_thread(client.get, gang.run_id)
    client.close()
    assert listed.phase is whole.phase is RunPhase.FAILED
    assert [member.phase for member in listed.members] == [MemberPhase.EXITED]
    assert listed.members[0].exit is None  # it is over: its members are counted
    assert listed.failure is not None
    assert whole.failure is not None
    for report, is_whole in (
        (listed.failure.exit, False),
        (whole.failure.exit, True),
        (whole.members[0].exit, True),
    ):
        assert report is not None
        assert report.exception_type == "ValueError"
        assert report.message.startswith("bad labels")
        assert (len(report.message) > 1000) is is_whole
        assert bool(report.traceback) is is_whole
        assert bool(report.log_tail) is is_whole


async def test_a_hello_is_no_larger_than_other_requests(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    """Nothing of it is kept, but it is read before anybody knows what it is."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang["worker:0"].reserve()
    client = ReservationClient(coordinator.address, coordinator.token)
    try:
        with pytest.raises(LimitExceeded, match="request bytes"):
            await attend(client, gang.run_id, IncarnationId("x" * Limits().request_bytes))
    finally:
        await client.close()


async def attend(client: ReservationClient, run_id: RunId, incarnation: IncarnationId) -> None:
    async with client.attend(run_id, MemberId(Role.WORKER, 0), incarnation) as session:
        async for _ in session.commands():
            pass


@pytest.mark.parametrize("method", ["get", "watch", "own", "stop"])
async def test_every_answer_with_a_run_is_of_bounded_size(
    coordinator: Serving, gang_of: MakeGang, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """E1"""
    monkeypatch.setattr(run_pictures, "MOST_REPORTS", 1)
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    await gang.enter()
    await gang["worker:1"].end(CRASH)
    await gang["worker:0"].end(CRASH)
    await coordinator.ended(gang.run_id)
    client = RunClient(coordinator.address, coordinator.token)
    try:
        run = await asyncio.to_thread(lambda: last(client, gang.run_id, method))
    finally:
        client.close()
    assert run.failure is not None
    assert run.failure.exit == CRASH
    by_name = {str(member.id): member.exit for member in run.members}
    assert by_name["worker:1"] == CRASH
    short = by_name["worker:0"]
    assert short is not None
    assert (short.traceback, short.log_tail) == ("", "")


def last(client: RunClient, run_id: RunId, method: str) -> RunView:
    if method == "get":
        return client.get(run_id)
    if method == "stop":
        return client.stop(run_id, "to see what is answered")
    return list(getattr(client, method)(run_id))[-1]
