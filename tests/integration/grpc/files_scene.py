"""Agents' event files on real sockets: members' directories, and the driver's mirror of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from coordinator.core.file_progress import FileProgress
from coordinator.core.model import IncarnationId, MemberId, RunId
from coordinator.file_client import FileClient, Origin
from coordinator.member_client import ReservationClient
from coordinator.spark.event_files import EventFileMirror
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.testing import FakeGang, Serving
from executor_agent.event_files import EventFiles

PATIENCE = 20.0


async def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"never came: {what}")
        await asyncio.sleep(0.01)


def contents(directory: Path) -> dict[str, bytes]:
    """By path from there."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


class SendingMember:
    """A member with a slot of its own, and what its agent does with its files."""

    def __init__(
        self, client: ReservationClient, origin: Origin, run_id: RunId, directory: Path
    ) -> None:
        self.origin = origin
        self.directory = directory
        self.complaints: list[str] = []
        self.progress = FileProgress()
        who = (run_id, origin.member, origin.incarnation)
        self.files = EventFiles(
            directory, lambda: client.send_files(*who), self.complaints.append, self.progress
        )

    def write(self, path: str, data: bytes) -> None:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            file.write(data)


class Scene:
    """One run. ``member`` reserves a slot; ``receive`` begins a mirror in ``self.mirror``."""

    def __init__(self, coordinator: Serving, gang: FakeGang, folder: Path) -> None:
        self.coordinator = coordinator
        self.gang = gang
        self.folder = folder
        self.mirror = folder / "mirror"
        self.said: list[str] = []
        self.stack = AsyncExitStack()

    async def member(self, name: str = "worker:0") -> SendingMember:
        fake = self.gang[name]
        await fake.reserve()
        return self.sender(name, fake.incarnation)

    def sender(self, name: str, incarnation: str) -> SendingMember:
        client = ReservationClient(self.coordinator.address, self.coordinator.token)
        origin = Origin(MemberId.parse(name), IncarnationId(incarnation))
        directory = self.folder / f"{name.replace(':', '-')}.{incarnation}"
        directory.mkdir(parents=True, exist_ok=True)
        sending = SendingMember(client, origin, self.gang.run_id, directory)
        self.stack.push_async_callback(client.close)
        self.stack.push_async_callback(sending.files.close)
        return sending

    def load(self) -> int:
        """Bytes that wait in the coordinator."""
        return self.coordinator.server.files.load.size

    def receive(self, files: MirroredFiles | None = None, token: str = "") -> EventFileMirror:
        address = self.coordinator.address
        client = FileClient(address, token or self.coordinator.token, self.gang.run_id)
        mirror = EventFileMirror(client, files or MirroredFiles(self.mirror), self.said.append)
        mirror.start()
        self.stack.push_async_callback(asyncio.to_thread, mirror.close)
        return mirror


@asynccontextmanager
async def scene_of(coordinator: Serving, gang: FakeGang, folder: Path) -> AsyncIterator[Scene]:
    scene = Scene(coordinator, gang, folder)
    async with scene.stack:
        yield scene
