"""Pieces of files on their way from agents to drivers, and acknowledgements on their way back.

Keeps nothing: a few pieces for each driver, and what each agent has not read yet. Whoever is slow
is waited for by whoever sends to it, and by nobody else. Knows neither protobuf nor files: a piece
is a message and its size. No run depends on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from coordinator.core.file_values import MAX_FILES, WINDOW_BYTES, AllHeld, Held, Receiver
from coordinator.core.model import IncarnationId, MemberId, RunId

Who = tuple[MemberId, IncarnationId]
Answer = Held | Receiver | AllHeld

_MOST_PIECES = 32
"""That wait for one driver."""

_MANY_BYTES = 16 * 1024 * 1024
"""About so much may be on its way to one driver: the agents share it."""

_SMALLEST_WINDOW = 16 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something for the driver: a piece, or the end, of one attempt's files, as a message of the
    service's and its size; or whether its agent is connected."""

    who: Who
    message: Any = None
    size: int = 0
    is_there: bool | None = None


class Sender:
    """An agent's stream: what it has to be told. The latest word on each file counts."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._receiver: Receiver | None = None
        self._held: dict[str, Held] = {}
        self._has_all = False
        self._news = asyncio.Event()

    def tell(self, answer: Answer) -> None:
        """Never blocks."""
        match answer:
            case Receiver():  # what another one has held says nothing
                self._held.clear()
                self._has_all = False
                self._receiver = answer
            case Held(path=path) if len(self._held) < MAX_FILES or path in self._held:
                before = self._held.get(path)
                missed = before is not None and before.version == answer.version and before.missed
                self._held[path] = replace(answer, missed=answer.missed or missed)
            case AllHeld():
                self._has_all = True
        self._news.set()

    async def answers(self) -> list[Answer]:
        """All there is to tell, when there is something."""
        await self._news.wait()
        self._news.clear()
        answers: list[Answer] = [] if self._receiver is None else [self._receiver]
        answers += self._held.values()
        answers += [AllHeld()] if self._has_all else []
        self._receiver, self._has_all = None, False
        self._held.clear()
        return answers


class Load:
    """``size``: bytes of pieces that wait for all drivers together."""

    size = 0


class Inbox:
    """A driver's stream: what it has to be told, in order, and never much of it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.on_end: Callable[[], None] = lambda: None
        self._queue: deque[Delivery] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(_MOST_PIECES)
        self._is_closed = False

    def announce(self, delivery: Delivery) -> None:
        """A few words that need no room."""
        self._queue.append(delivery)
        self._news.set()

    async def put(self, delivery: Delivery) -> None:
        """Waits until there is room. Dropped when the driver has gone meanwhile: its agent will
        send it again."""
        self._load.size += delivery.size
        try:
            await self._room.acquire()
        except BaseException:
            self._load.size -= delivery.size
            raise
        if self._is_closed:
            self._load.size -= delivery.size
            self._room.release()  # for the next who waits
        else:
            self.announce(delivery)

    async def get(self) -> Delivery:
        """The next, when there is one."""
        while not self._queue:
            self._news.clear()
            await self._news.wait()
        delivery = self._queue.popleft()
        if delivery.message is not None:
            self._load.size -= delivery.size
            self._room.release()
        return delivery

    def close(self) -> None:
        """Those who wait to put something need not. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._load.size -= sum(delivery.size for delivery in self._queue)
        self._queue.clear()
        self._room.release()


class _Files:
    """Of one run."""

    def __init__(self) -> None:
        self.senders: dict[Who, Sender] = {}
        self.inbox: Inbox | None = None

    def receiver(self) -> Receiver:
        share = _MANY_BYTES // max(1, len(self.senders))
        return Receiver(self.inbox is not None, max(_SMALLEST_WINDOW, min(WINDOW_BYTES, share)))


class FileRelay:
    """All runs of one coordinator. Use inside one event loop."""

    def __init__(self) -> None:
        self.load = Load()
        self._runs: dict[RunId, _Files] = {}

    def open_sender(self, run_id: RunId, who: Who) -> Sender:
        """An agent has come. A second stream of the same attempt ends the first."""
        files = self._runs.setdefault(run_id, _Files())
        before = files.senders.get(who)
        sender = files.senders[who] = Sender()
        if before is not None:
            before.on_end()
        if files.inbox is not None:
            files.inbox.announce(Delivery(who, is_there=True))
        sender.tell(files.receiver())
        return sender

    def close_sender(self, run_id: RunId, who: Who, sender: Sender) -> None:
        files = self._runs.get(run_id)
        if files is not None and files.senders.get(who) is sender:
            del files.senders[who]
            if files.inbox is not None:
                files.inbox.announce(Delivery(who, is_there=False))
            self._tidy(run_id, files)

    async def pass_on(self, run_id: RunId, who: Who, message: Any, size: int) -> None:
        """To the driver; dropped when there is none, of which the agent has been told."""
        files = self._runs.get(run_id)
        if files is not None and files.inbox is not None:
            await files.inbox.put(Delivery(who, message, size))

    def open_receiver(self, run_id: RunId) -> Inbox:
        """A driver has come. A second one ends the first."""
        files = self._runs.setdefault(run_id, _Files())
        before = files.inbox
        inbox = files.inbox = Inbox(self.load)
        if before is not None:
            before.close()
            before.on_end()
        for who, sender in files.senders.items():
            inbox.announce(Delivery(who, is_there=True))
            sender.tell(files.receiver())
        return inbox

    def close_receiver(self, run_id: RunId, inbox: Inbox) -> None:
        inbox.close()
        files = self._runs.get(run_id)
        if files is not None and files.inbox is inbox:
            files.inbox = None
            for sender in files.senders.values():
                sender.tell(files.receiver())
            self._tidy(run_id, files)

    def answer(self, run_id: RunId, inbox: Inbox, who: Who, answer: Answer) -> None:
        """The driver's word to an agent; nothing when either has gone."""
        files = self._runs.get(run_id)
        if files is not None and files.inbox is inbox and who in files.senders:
            files.senders[who].tell(answer)

    def _tidy(self, run_id: RunId, files: _Files) -> None:
        if not files.senders and files.inbox is None:
            del self._runs[run_id]
