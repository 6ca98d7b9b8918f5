"""Who may send and receive event files, and what of them (R5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.core import errors
from coordinator.core.access import Principal, Role
from coordinator.core.file_values import PIECE_BYTES, Piece, Receiver
from coordinator.core.model import IncarnationId, MemberId, Roles, RunId
from coordinator.core.model import Role as MemberRole
from coordinator.file_client import FileClient
from coordinator.file_sender import FileSending
from coordinator.limits import Limits
from coordinator.member_client import ReservationClient
from coordinator.security import Keyring
from coordinator.testing import FakeGang, Serving, serving
from tests.integration.grpc.conftest import MakeGang
from tests.integration.grpc.files_scene import contents, eventually, scene_of

pytestmark = pytest.mark.timeout(60)

WORKER = MemberId(MemberRole.WORKER, 0)


@pytest.fixture
async def gang(coordinator: Serving, gang_of: MakeGang) -> FakeGang:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang["worker:0"].reserve()
    return gang


@pytest.fixture
async def client(coordinator: Serving) -> AsyncIterator[ReservationClient]:
    client = ReservationClient(coordinator.address, coordinator.token)
    yield client
    await client.close()


async def refusal(sending: FileSending, *pieces: Piece) -> errors.TfleaseError:
    """How the stream ends. The pieces are sent when somebody receives."""
    try:
        async with sending as stream:
            async for answer in stream.answers():
                if answer == Receiver(is_there=True):
                    for piece in pieces:
                        await stream.send(piece)
    except errors.TfleaseError as error:
        return error
    raise AssertionError("it was not refused")


async def send_all(stream: FileSending, pieces: list[Piece]) -> None:
    """Until they are refused, of which the answers tell."""
    with suppress(errors.TfleaseError):
        for piece in pieces:
            await stream.send(piece)


@pytest.mark.parametrize(
    "piece",
    [
        Piece("../x", 0, 0, b"x"),
        Piece("/etc/passwd", 0, 0, b"x"),
        Piece("a\0b", 0, 0, b"x"),
        Piece("a", 0, -1, b"x"),
        Piece("a", -1, 0, b"x"),
        Piece("a", 0, 0, b"x" * (PIECE_BYTES + 1)),
    ],
    ids=["upwards", "absolute", "NUL", "offset", "version", "size"],
)
async def test_a_piece_that_makes_no_sense_ends_its_sender_and_goes_nowhere(
    coordinator: Serving, gang: FakeGang, client: ReservationClient, tmp_path: Path, piece: Piece
) -> None:
    async with scene_of(coordinator, gang, tmp_path) as scene:
        scene.receive()
        who = (gang.run_id, WORKER, gang["worker:0"].incarnation)
        error = await refusal(client.send_files(*who), Piece("good", 0, 0, b"good"), piece)
        assert type(error) is errors.InvalidReservation
        await eventually(lambda: contents(tmp_path) == {"mirror/worker-0/good": b"good"}, "it")


async def test_only_the_holder_of_a_slot_sends_its_files(
    gang: FakeGang, client: ReservationClient
) -> None:
    incarnation, run_id = gang["worker:0"].incarnation, gang.run_id
    for who, kind in (
        ((run_id, WORKER, IncarnationId("another")), errors.StaleIncarnation),
        ((run_id, MemberId(MemberRole.WORKER, 1), incarnation), errors.StaleIncarnation),
        ((run_id, MemberId(MemberRole.WORKER, 2), incarnation), errors.InvalidReservation),
        ((run_id, MemberId(MemberRole.PS, 0), incarnation), errors.InvalidReservation),
        ((run_id, WORKER, IncarnationId("")), errors.InvalidReservation),
        ((RunId("nowhere"), WORKER, incarnation), errors.UnknownRun),
    ):
        assert type(await refusal(client.send_files(*who))) is kind


async def test_the_tokens_of_a_run_open_its_files_and_no_other_s(
    coordinator: Serving, gang: FakeGang
) -> None:
    keyring = Keyring(coordinator.token)

    async def received(role: Role, run: str) -> errors.TfleaseError | None:
        token = keyring.token_for(Principal(role, run))
        client = FileClient(coordinator.address, token, gang.run_id)
        news = client.receive()
        try:
            await asyncio.to_thread(next, news, None)
        except errors.TfleaseError as error:
            return error
        finally:
            await asyncio.to_thread(client.close)
        return None

    assert type(await received(Role.OWNER, "another")) is errors.PermissionDenied
    assert type(await received(Role.AGENT, gang.run_id)) is errors.PermissionDenied
    assert type(await received(Role.READER, "somebody")) is errors.PermissionDenied
    agent = ReservationClient(
        coordinator.address, keyring.token_for(Principal(Role.AGENT, "another"))
    )
    who = (gang.run_id, WORKER, gang["worker:0"].incarnation)
    assert type(await refusal(agent.send_files(*who))) is errors.PermissionDenied
    await agent.close()


async def test_a_run_that_nobody_knows_has_no_files(coordinator: Serving) -> None:
    client = FileClient(coordinator.address, coordinator.token, RunId("nowhere"))

    def receive() -> None:
        with pytest.raises(errors.UnknownRun):
            list(client.receive())

    await asyncio.to_thread(receive)
    client.close()


async def test_more_than_the_coordinator_carries_is_refused_and_comes_again(
    gang_of: MakeGang, tmp_path: Path
) -> None:
    async with serving(limits=Limits(file_bytes=10_000)) as small:
        gang = await gang_of(small, Roles(worker=1))
        await gang["worker:0"].reserve()
        client = ReservationClient(small.address, small.token)
        who = (gang.run_id, WORKER, gang["worker:0"].incarnation)
        async with scene_of(small, gang, tmp_path) as scene:
            scene.receive()
            error = await refusal(client.send_files(*who), Piece("a", 0, 0, b"x" * 20_000))
            assert type(error) is errors.LimitExceeded
            assert error.metadata["limit"] == "file_bytes"
            assert small.server.limiter.refused["file_bytes"] == 1
        await client.close()


async def test_a_driver_that_reads_nothing_leaves_room_for_the_others(
    gang_of: MakeGang, tmp_path: Path
) -> None:
    """On a daemon that many share."""
    async with serving(limits=Limits(file_bytes=100_000)) as small:
        stuck, healthy = [await gang_of(small, Roles(worker=1)) for _ in range(2)]
        await stuck["worker:0"].reserve()
        driver = FileClient(small.address, small.token, stuck.run_id)
        news = driver.receive()
        reading = asyncio.create_task(asyncio.to_thread(next, news))  # one word, and no more
        client = ReservationClient(small.address, small.token)
        who = (stuck.run_id, WORKER, stuck["worker:0"].incarnation)
        pieces = [Piece("a", 0, 10_000 * number, b"x" * 10_000) for number in range(1_000)]
        async with client.send_files(*who) as stream:
            sending = asyncio.create_task(send_all(stream, pieces))
            with pytest.raises(errors.LimitExceeded):
                async for _ in stream.answers():
                    pass
            await sending
        await reading
        assert 40_000 < small.server.files.load.size < 60_000
        async with scene_of(small, healthy, tmp_path) as scene:
            scene.receive()
            member = await scene.member()
            member.write("events", b"x" * 30_000)
            member.files.start()
            await eventually(
                lambda: contents(scene.mirror) == {"worker-0/events": b"x" * 30_000}, "it"
            )
        await asyncio.to_thread(driver.close)
        await client.close()


async def test_senders_are_counted_and_their_places_given_back(
    gang_of: MakeGang, tmp_path: Path
) -> None:
    async with serving(limits=Limits(file_senders=1)) as small:
        gang = await gang_of(small, Roles(worker=2))
        client = ReservationClient(small.address, small.token)
        whos = []
        for member in gang:
            await member.reserve()
            whos.append((gang.run_id, member.member, member.incarnation))
        async with client.send_files(*whos[0]) as first:
            assert await anext(first.answers()) == Receiver(is_there=False)
            error = await refusal(client.send_files(*whos[1]))
            assert error.metadata["limit"] == "file_senders"
        await eventually(lambda: small.server.limiter.in_use("file_senders") == 0, "its place")
        async with client.send_files(*whos[1]) as second:
            assert await anext(second.answers()) == Receiver(is_there=False)
        await client.close()
