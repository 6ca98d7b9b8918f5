"""What an agent finds in a member's log directory, whatever the member puts there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from coordinator.core.errors import CoordinatorUnavailable, StaleIncarnation
from coordinator.core.file_progress import FileProgress, Seen
from coordinator.core.file_values import AllHeld, Held, Piece, Receiver
from executor_agent.event_files import EventFiles, pause_after

pytestmark = pytest.mark.timeout(30)


class FakeStream:
    """A coordinator and a driver that take everything and say so."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.refuses: Exception | None = None
        self._answers: list[Any] = [Receiver(is_there=True)]
        self._has_news = asyncio.Event()

    async def __aenter__(self) -> FakeStream:
        if self.refuses is not None:
            raise self.refuses
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def send(self, piece: Piece) -> None:
        data = self.data.get(piece.path, b"")
        assert piece.offset == len(data)
        self.data[piece.path] = data + piece.data
        self._answer(Held(piece.path, piece.version, len(self.data[piece.path])))

    async def complete(self) -> None:
        self._answer(AllHeld())

    def _answer(self, answer: Held | AllHeld) -> None:
        self._answers.append(answer)
        self._has_news.set()

    async def answers(self) -> AsyncIterator[Any]:
        while True:
            while self._answers:
                yield self._answers.pop(0)
            self._has_news.clear()
            await self._has_news.wait()


async def sent(directory: Path, progress: FileProgress | None = None) -> tuple[Any, list[str]]:
    """What arrives of a directory, and what is complained of."""
    stream, complaints = FakeStream(), []
    connect: Any = lambda: stream  # noqa: E731
    files = EventFiles(directory, connect, complaints.append, progress)
    files.start()
    await files.finish(20.0)
    return stream.data, complaints


async def test_regular_files_are_sent_and_nothing_else_is_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("somebody else's")
    events = tmp_path / "events"
    (events / "a" / "b").mkdir(parents=True)
    (events / "a" / "b" / "deep").write_bytes(b"deep")
    (events / "link").symlink_to(secret)
    (events / "folder").symlink_to(tmp_path)
    os.mkfifo(events / "pipe")
    assert await sent(events) == ({"a/b/deep": b"deep"}, [])


async def test_a_name_that_is_no_text_is_told_once_and_costs_nobody_else(tmp_path: Path) -> None:
    for name in (b"one\xff", b"two\xff", b"line\nbreak"):
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "good").write_bytes(b"good")
    data, complaints = await sent(tmp_path)
    assert data == {"good": b"good"}
    assert len(complaints) == 1


async def test_ten_thousand_files_are_too_many_and_the_first_thousand_are_sent(
    tmp_path: Path,
) -> None:
    for number in range(10_000):
        (tmp_path / str(number)).touch()
    data, complaints = await sent(tmp_path)
    assert len(data) == 1_000
    assert len(complaints) == 1
    assert "more than 1,000 files" in complaints[0]


async def test_more_bytes_than_may_be_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    data, complaints = await sent(tmp_path, FileProgress(max_bytes=60))
    assert data == {"file": b"x" * 60}
    assert "more than 60 bytes" in complaints[0]


async def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert await sent(tmp_path / "nowhere") == ({}, [])


async def test_who_is_refused_for_good_says_why_and_stops(tmp_path: Path) -> None:
    stream, complaints = FakeStream(), []
    stream.refuses = StaleIncarnation("another attempt has the slot")
    connect: Any = lambda: stream  # noqa: E731
    files = EventFiles(tmp_path, connect, complaints.append)
    files.start()
    await files.finish(20.0)
    assert complaints == ["event files are not sent any more: another attempt has the slot"]


async def test_a_member_s_end_waits_no_longer_than_it_may_for_a_coordinator_that_is_away(
    tmp_path: Path,
) -> None:
    stream, complaints = FakeStream(), []
    stream.refuses = CoordinatorUnavailable("nobody listens")
    connect: Any = lambda: stream  # noqa: E731
    files = EventFiles(tmp_path, connect, complaints.append)
    files.start()
    await files.finish(0.1)
    assert complaints == []


def test_a_file_that_shrinks_before_anything_was_sent_is_sent_as_it_is() -> None:
    progress = FileProgress()
    progress.receiver_came()
    progress.saw({"file": Seen(10, (0, 1))})
    progress.saw({"file": Seen(4, (0, 1))})
    question = progress.next()
    assert question is not None
    progress.sent(question, 0)
    wanted = progress.next()
    assert wanted is not None
    assert (wanted.version, wanted.offset, wanted.length) == (0, 0, 4)


def test_who_is_refused_comes_back_ever_later_also_while_somebody_receives() -> None:
    pause, pauses = 0.0, []
    for _ in range(8):
        pauses.append(pause := pause_after(pause, True, True))
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert pause_after(pause, True, False) == 0.2
    assert pause_after(1.6, False, False) == 2.0
