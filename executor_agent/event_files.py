"""What grows in a member's log directory, streamed to the driver by its agent.

Looks twice a second, sends what has grown, and forgets nothing that the driver has not said to
hold. Whatever becomes of it, the member does not depend on it: what cannot be read or sent is told
once, and that is all. Decisions are in ``coordinator.core.file_progress``.
"""

from __future__ import annotations

import asyncio
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from coordinator.core.errors import CoordinatorUnavailable, LimitExceeded, TfleaseError
from coordinator.core.file_progress import FileProgress, Seen, Wanted
from coordinator.core.file_values import MAX_FILES, AllHeld, Held, Piece, Receiver
from coordinator.file_sender import FileSending

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the directory."""

_RETRY_MIN, _RETRY_MAX = 0.2, 2.0
_REFUSED_MAX = 10.0
"""Seconds between two tries; the longer ones of a coordinator that has no room for what is sent."""

_LAST_WORD_TIMEOUT = 1.0

_MOST_ENTRIES = 4 * MAX_FILES
"""Of all directories together that one look reads."""


class EventFiles:
    """One attempt's files. ``connect``: a new stream to the coordinator; ``complain``: tells people
    something once."""

    def __init__(
        self,
        directory: Path,
        connect: Callable[[], FileSending],
        complain: Callable[[str], None],
        progress: FileProgress | None = None,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._complain = complain
        self._progress = progress or FileProgress()
        self._news = asyncio.Event()  # something may be sent, or all is held
        self._is_last = False  # the member has ended: its files do not grow any more
        self._is_connected = False
        self._has_looked_last = False
        self._has_told_end = False  # on this stream, to this receiver
        self._has_all = False  # the driver says so
        self._was_received = False  # a driver was there, and may come again
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def finish(self, timeout: float) -> None:
        """The member has ended: sends the rest. Returns when all of it is held, when nobody was
        ever there to receive it, or after ``timeout`` seconds."""
        if self._running is None:
            return
        self._is_last = True
        self._news.set()
        await asyncio.wait((self._running,), timeout=timeout)
        await self.close()

    async def close(self) -> None:
        """Gives up whatever is under way. Idempotent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        pause = 0.0
        while True:
            is_refused = False
            try:
                async with self._connect() as stream:
                    if await self._attend(stream):
                        return
            except CoordinatorUnavailable:
                pass  # it keeps what it has, and comes again
            except LimitExceeded:
                is_refused = True
            except TfleaseError as error:
                self._complain(f"event files are not sent any more: {error}")
                return
            except Exception as error:  # a bug of ours must not be the member's
                self._complain(f"event files: {type(error).__name__}: {error}")
                return
            finally:
                pause = pause_after(pause, self._progress.is_received, is_refused)
                self._is_connected = self._has_told_end = False
                self._progress.receiver_left()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _attend(self, stream: FileSending) -> bool:
        """One stream. True: the driver has all, or will not have it: there is no more to do."""
        reading = asyncio.create_task(self._read(stream))
        sending = asyncio.create_task(self._send_all(stream))
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() is None:
                return True
            await asyncio.wait((reading,), timeout=_LAST_WORD_TIMEOUT)
            if reading.done():  # what the coordinator said last explains the end
                reading.result()
            sending.result()
            return True
        finally:
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)

    async def _read(self, stream: FileSending) -> None:
        async for answer in stream.answers():
            match answer:
                case Receiver(is_there=is_there, window=window):
                    self._has_told_end = False
                    self._was_received = self._was_received or is_there
                    if is_there:
                        self._progress.receiver_came(window)
                    else:
                        self._progress.receiver_left()
                case Held():
                    self._progress.held(answer)
                case AllHeld():
                    self._has_all = True
            self._is_connected = True
            self._news.set()
        raise CoordinatorUnavailable("the coordinator ended the stream of files")

    async def _send_all(self, stream: FileSending) -> None:
        """Returns when there is nothing more to do for good."""
        loop = asyncio.get_running_loop()
        look_at = 0.0
        while True:
            self._news.clear()
            if loop.time() >= look_at or (self._is_last and not self._has_looked_last):
                await self._look()
                look_at = loop.time() + LOOK_INTERVAL
            while (wanted := self._progress.next()) is not None:
                await self._send(stream, wanted)
            if self._is_last and self._has_looked_last:
                if self._has_all or (self._is_connected and not self._was_received):
                    return  # the driver has it, or nobody ever wanted it
                if self._progress.is_complete and not self._has_told_end:
                    self._has_told_end = True
                    await stream.complete()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._news.wait()

    async def _look(self) -> None:
        is_last = self._is_last  # before the look
        self._progress.saw(await asyncio.to_thread(lambda: dict(_files_below(self._directory))))
        self._has_looked_last = is_last
        for text in self._progress.complaints:
            self._complain(text)
        self._progress.complaints.clear()

    async def _send(self, stream: FileSending, wanted: Wanted) -> None:
        data = b""
        if wanted.length:
            found = await asyncio.to_thread(_read_piece, self._directory, wanted)
            if not isinstance(found, bytes):
                self._progress.changed(wanted.path, found)
                return
            data = found
        piece = Piece(wanted.path, wanted.version, wanted.offset, data)
        self._progress.sent(wanted, len(data))  # first: its answer may come before we go on
        await stream.send(piece)


def pause_after(last: float, was_received: bool, is_refused: bool) -> float:
    """Seconds until the next try. ``was_received``: by a driver, until then."""
    if is_refused:  # thousands of agents that come back at once would be worse than what they send
        return min(max(2 * last, _RETRY_MIN), _REFUSED_MAX)
    return _RETRY_MIN if was_received else min(max(2 * last, _RETRY_MIN), _RETRY_MAX)


def _files_below(directory: Path) -> Iterator[tuple[str, Seen]]:
    """Regular files by their path from there. Links are nobody's files: they are passed over."""
    entries_left = _MOST_ENTRIES
    waiting = [("", str(directory))]
    while waiting:
        prefix, path = waiting.pop()
        with suppress(OSError), os.scandir(path) as entries:  # it may be gone by now
            for entry in entries:
                entries_left -= 1
                if entries_left < 0:
                    return
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        yield f"{prefix}{entry.name}", _seen(entry.stat(follow_symlinks=False))


def _seen(status: os.stat_result) -> Seen:
    return Seen(status.st_size, (status.st_dev, status.st_ino))


def _read_piece(directory: Path, wanted: Wanted) -> bytes | Seen | None:
    """The piece; or the file as it is now, when it is not the one that was looked at; None: there
    is none."""
    try:
        descriptor = os.open(
            directory / wanted.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        seen = _seen(status)
        if not stat.S_ISREG(status.st_mode):
            return None
        if seen.identity != wanted.identity or seen.size < wanted.offset + wanted.length:
            return seen
        return os.pread(descriptor, wanted.length, wanted.offset)
    except OSError:
        return None
    finally:
        os.close(descriptor)
