"""Event files from agents to the driver, over real sockets and across what goes wrong there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.core.file_values import WINDOW_BYTES, Held, Piece
from coordinator.core.model import Roles
from coordinator.file_client import Origin
from coordinator.server import Server
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.testing import Serving
from tests.integration.grpc.conftest import MakeGang
from tests.integration.grpc.files_scene import Scene, contents, eventually, scene_of

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def scene(coordinator: Serving, gang_of: MakeGang, tmp_path: Path) -> AsyncIterator[Scene]:
    gang = await gang_of(coordinator, Roles(worker=2))
    async with scene_of(coordinator, gang, tmp_path) as found:
        yield found


async def test_what_grows_arrives_while_it_grows_and_the_rest_when_the_member_has_ended(
    scene: Scene,
) -> None:
    first, second = await scene.member("worker:0"), await scene.member("worker:1")
    mirror = scene.receive()
    for member in (first, second):
        member.files.start()
        member.write("train/events", b"one ")
    await eventually(
        lambda: (
            contents(scene.mirror)
            == {"worker-0/train/events": b"one ", "worker-1/train/events": b"one "}
        ),
        "what was written first",
    )
    first.write("train/events", b"two")
    first.write("validation/events", b"")
    first.write("large", bytes(range(256)) * 10_000)
    await first.files.finish(10.0)
    assert await asyncio.to_thread(mirror.drain, [first.origin], 10.0)
    assert contents(scene.mirror) == {
        "worker-0/train/events": b"one two",
        "worker-0/validation/events": b"",
        "worker-0/large": bytes(range(256)) * 10_000,
        "worker-1/train/events": b"one ",
    }
    assert not await asyncio.to_thread(mirror.drain, [first.origin, second.origin], 0.0)
    assert first.complaints == scene.said == []


async def test_without_a_receiver_agents_wait_and_lose_nothing(scene: Scene) -> None:
    member = await scene.member()
    member.files.start()
    member.write("events", b"before anybody came, ")
    mirror = scene.receive()
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the first")
    await asyncio.to_thread(mirror.close)
    member.write("events", b"while nobody was there, ")
    again = scene.receive(MirroredFiles(scene.folder / "again"))
    await eventually(
        lambda: (
            contents(scene.folder / "again")
            == {"worker-0/events": b"before anybody came, while nobody was there, "}
        ),
        "all of it, at a driver that had nothing",
    )
    member.write("events", b"and the rest")
    await member.files.finish(10.0)
    assert await asyncio.to_thread(again.drain, [member.origin], 10.0)
    assert contents(scene.folder / "again")["worker-0/events"].endswith(b"and the rest")


async def test_a_member_that_ends_does_not_wait_where_nobody_receives(scene: Scene) -> None:
    member = await scene.member()
    member.files.start()
    member.write("events", b"for nobody")
    await member.files.finish(50.0)  # less than the timeout of the test
    assert not member.complaints


async def test_a_member_that_ends_waits_for_a_receiver_that_was_there_before(
    scene: Scene,
) -> None:
    """A daemon that was restarted: its agents are back before its driver."""
    member = await scene.member()
    mirror = scene.receive()
    member.files.start()
    member.write("events", b"first, ")
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the first")
    await asyncio.to_thread(mirror.close)
    await eventually(lambda: not member.progress.is_received, "the agent knows")
    member.write("events", b"last")
    finishing = asyncio.create_task(member.files.finish(20.0))
    scene.receive(MirroredFiles(scene.folder / "again"))
    await finishing
    assert contents(scene.folder / "again") == {"worker-0/events": b"first, last"}


async def test_a_second_receiver_ends_the_first(scene: Scene) -> None:
    member = await scene.member()
    member.files.start()
    member.write("events", b"one")
    scene.receive()
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the file")
    scene.receive(MirroredFiles(scene.folder / "second"))
    await eventually(lambda: bool(contents(scene.folder / "second")), "the file once more")
    await eventually(
        lambda: scene.said == ["event files: another receiver has taken over"], "a word of it"
    )


class SlowFiles(MirroredFiles):
    """Writes nothing before it may."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.may_write = threading.Event()

    def take(self, origin: Origin, piece: Piece) -> Held:
        self.may_write.wait(60)
        return super().take(origin, piece)


async def test_a_slow_receiver_is_waited_for_and_nothing_piles_up(scene: Scene) -> None:
    """F: bounded memory, on agents and on the coordinator."""
    slow = SlowFiles(scene.mirror)
    scene.receive(slow)
    members = [await scene.member("worker:0"), await scene.member("worker:1")]
    data = bytes(range(256)) * 12 * 1024  # 3 MiB
    try:
        for member in members:
            member.write("events", data)
            member.files.start()
        await eventually(
            lambda: all(each.progress.on_the_way == WINDOW_BYTES for each in members),
            "as much on its way as may be",
        )
        assert scene.load() <= 2 * WINDOW_BYTES + 1_000
    finally:
        slow.may_write.set()
    for member in members:
        await member.files.finish(20.0)
    assert contents(scene.mirror) == {"worker-0/events": data, "worker-1/events": data}
    assert scene.load() == 0


async def test_a_file_that_shrinks_begins_anew(scene: Scene) -> None:
    member = await scene.member()
    scene.receive()
    member.files.start()
    member.write("events", b"a long text")
    await eventually(
        lambda: contents(scene.mirror) == {"worker-0/events": b"a long text"}, "the long text"
    )
    (member.directory / "events").write_bytes(b"short")
    await eventually(
        lambda: contents(scene.mirror) == {"worker-0/events": b"short"}, "the short one"
    )
    (member.directory / "new").write_bytes(b"a longer text, in another file")
    (member.directory / "new").rename(member.directory / "events")
    await member.files.finish(10.0)
    assert contents(scene.mirror) == {"worker-0/events": b"a longer text, in another file"}


async def test_the_next_attempt_s_file_of_the_same_name_goes_beside_it(scene: Scene) -> None:
    member = await scene.member()
    mirror = scene.receive()
    member.files.start()
    member.write("metrics.csv", b"of the first attempt")
    await eventually(lambda: bool(contents(scene.mirror)), "the file")
    await member.files.finish(10.0)
    mirrored = MirroredFiles(scene.mirror)
    later = Origin(member.origin.member, type(member.origin.incarnation)("later"))
    await asyncio.to_thread(mirror.close)
    assert mirrored.take(later, Piece("metrics.csv", 0, 0, b"of the second")).size == 13
    assert contents(scene.mirror) == {
        "worker-0/metrics.csv": b"of the first attempt",
        "worker-0/metrics.csv.2": b"of the second",
    }


async def test_a_coordinator_that_comes_back_costs_nothing_but_time(
    scene: Scene, coordinator: Serving
) -> None:
    member = await scene.member()
    mirror = scene.receive()
    member.files.start()
    member.write("events", b"before, ")
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the first")
    await coordinator.server.stop(grace=0.0)
    member.write("events", b"while it was away, ")
    port = int(coordinator.address.rpartition(":")[2])
    again = Server(coordinator.engine, coordinator.token)
    await again.start(port=port)
    try:
        await eventually(
            lambda: contents(scene.mirror)["worker-0/events"] == b"before, while it was away, ",
            "what was written meanwhile",
        )
        member.write("events", b"and after")
        await member.files.finish(10.0)
        assert await asyncio.to_thread(mirror.drain, [member.origin], 10.0)
        text = b"before, while it was away, and after"
        assert contents(scene.mirror) == {"worker-0/events": text}
    finally:
        await asyncio.to_thread(mirror.close)
        await again.stop(grace=0.0)


async def test_an_agent_that_is_killed_costs_the_tail_and_is_not_waited_for(scene: Scene) -> None:
    member = await scene.member()
    mirror = scene.receive()
    member.files.start()
    member.write("events", b"all that it could send")
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the file")
    await member.files.close()  # as if it were gone: without a word
    member.write("events", b" and what nobody reads any more")
    assert await asyncio.to_thread(mirror.drain, [member.origin], 10.0)
    assert contents(scene.mirror) == {"worker-0/events": b"all that it could send"}


async def test_a_disk_that_fails_costs_the_event_files_and_is_said_once(scene: Scene) -> None:
    member = await scene.member()
    scene.mirror.parent.mkdir(exist_ok=True)

    class FullDisk(MirroredFiles):
        is_full = True

        def take(self, origin: Origin, piece: Piece) -> Held:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().take(origin, piece)

    files = FullDisk(scene.mirror)
    scene.receive(files)
    member.files.start()
    member.write("events", b"worth keeping")
    await eventually(lambda: bool(scene.said), "a word of the disk")
    FullDisk.is_full = False
    await eventually(lambda: bool(contents(scene.mirror).get("worker-0/events")), "the file")
    assert len(scene.said) == 1
    assert "No space left on device" in scene.said[0]
