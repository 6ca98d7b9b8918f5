"""Pieces of files on their way from agents to drivers, and acknowledgements on their way back.

Keeps nothing: a few pieces for each driver, and what each agent has not read yet. Whoever is slow
is waited for by whoever sends to it, and by nobody else. Knows neither protobuf nor files: a piece
is a message and its size. No run depends on it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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
"""About so much may be on its way to one driver, at most twice as much: the agents share it."""

_SMALLEST_WINDOW = 1024


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
    """A driver's stream: what it has to be told, in order, and never much of it. ``size``: bytes of
    the pieces among it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.on_end: Callable[[], None] = lambda: None
        self.size = 0
        self._queue: OrderedDict[object, Delivery] = OrderedDict()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(_MOST_PIECES)
        self._is_closed = False

    def announce(self, delivery: Delivery) -> None:
        """A few words that need no room: of each agent the latest, behind its pieces. One that
        comes and goes while its driver reads nothing must not pile up."""
        self._queue.pop(delivery.who, None)
        self._append(delivery.who, delivery)

    def _append(self, key: object, delivery: Delivery) -> None:
        self._queue[key] = delivery
        self._news.set()

    def _count(self, size: int) -> None:
        self.size += size
        self._load.size += size

    async def put(self, delivery: Delivery) -> None:
        """Waits until there is room. Dropped when the driver has gone meanwhile: its agent will
        send it again."""
        self._count(delivery.size)
        try:
            await self._room.acquire()
        except BaseException:
            self._count(-delivery.size)
            raise
        if self._is_closed:
            self._count(-delivery.size)
            self._room.release()  # for the next who waits
        else:
            self._append(object(), delivery)

    async def get(self) -> Delivery:
        """The next, when there is one."""
        while not self._queue:
            self._news.clear()
            await self._news.wait()
        _, delivery = self._queue.popitem(last=False)
        if delivery.message is not None:
            self._count(-delivery.size)
            self._room.release()
        return delivery

    def close(self) -> None:
        """Those who wait to put something need not. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._count(-sum(delivery.size for delivery in self._queue.values()))
        self._queue.clear()
        self._room.release()


class _Files:
    """Of one run."""

    def __init__(self) -> None:
        self.senders: dict[Who, Sender] = {}
        self.inbox: Inbox | None = None
        self._sharers = 0  # when all were told of their window

    def tell(self, sender: Sender) -> None:
        """A new one of the receiver; and all, when its share would make it too much. They may send
        again what is on its way, so that is seldom done."""
        most = 2 * max(self._sharers, _MANY_BYTES // WINDOW_BYTES)
        if self.inbox is not None and len(self.senders) > most:
            self.tell_all()
        else:
            sender.tell(self._receiver())

    def tell_all(self) -> None:
        self._sharers = len(self.senders)
        for sender in self.senders.values():
            sender.tell(self._receiver())

    def _receiver(self) -> Receiver:
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
        files.tell(sender)
        return sender

    def close_sender(self, run_id: RunId, who: Who, sender: Sender) -> None:
        files = self._runs.get(run_id)
        if files is not None and files.senders.get(who) is sender:
            del files.senders[who]
            if files.inbox is not None:
                files.inbox.announce(Delivery(who, is_there=False))
            self._tidy(run_id, files)

    def waits_for(self, run_id: RunId) -> int:
        """Bytes of pieces that wait for this run's driver."""
        files = self._runs.get(run_id)
        return 0 if files is None or files.inbox is None else files.inbox.size

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
        for who in files.senders:
            inbox.announce(Delivery(who, is_there=True))
        files.tell_all()
        return inbox

    def close_receiver(self, run_id: RunId, inbox: Inbox) -> None:
        inbox.close()
        files = self._runs.get(run_id)
        if files is not None and files.inbox is inbox:
            files.inbox = None
            files.tell_all()
            self._tidy(run_id, files)

    def answer(self, run_id: RunId, inbox: Inbox, who: Who, answer: Answer) -> None:
        """The driver's word to an agent; nothing when either has gone."""
        files = self._runs.get(run_id)
        if files is not None and files.inbox is inbox and who in files.senders:
            files.senders[who].tell(answer)

    def _tidy(self, run_id: RunId, files: _Files) -> None:
        if not files.senders and files.inbox is None:
            del self._runs[run_id]
