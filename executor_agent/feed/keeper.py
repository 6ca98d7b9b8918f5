"""The keeper of all feeds' steps, in the process of rank 0: threads and sockets around
``core.feed_steps``, and the driver's control calls.

A train has one connection to each worker, this one included, each with a thread of its own. What
workers say goes into the train's machine; what it wants said waits in the workers' outboxes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from executor_agent.core import feed_steps as steps
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.keeper_link import KeeperLink
from executor_agent.feed.wire import Connection, Message

_REQUEST_TIMEOUT = 30.0
"""Seconds from a control call's hello to its request."""

_OPENING = ("first", "earlier")
"""What a gang that was restarted is told when a train opens; see `Feed.open_train`."""

_LINKS_TIMEOUT = 6.0
"""Seconds that workers have to hear the last word."""


class KeptTrain:
    """One train: its machine, and the links to its workers."""

    def __init__(
        self,
        feed: str,
        number: int,
        epochs: int | None,
        workers: list[FeedEndpoint],
        key: FeedKey,
        boot_id: str,
        opening: Mapping[str, int] | None = None,
    ) -> None:
        self.number = number
        self._changed = threading.Condition()
        self._machine = steps.Keeper(feed, number, epochs, workers, opening)
        self._closed: dict[int, steps.Closed] = {}
        self._ended: str | None = None
        self._trouble: str | None = None
        hello = {"kind": "keeper", "feed": feed, "train": number}
        self._links = {
            worker.member: KeeperLink(worker, key, boot_id, hello, self._heard)
            for worker in workers
        }

    def start(self) -> None:
        """Tell the workers, as they can be reached."""
        with self._changed:
            self._interpret(self._machine.begin(time.monotonic()))
        for link in self._links.values():
            link.start()

    def wait_until_ready(self, deadline: float) -> Message:
        """The reply to `open`."""
        with self._changed:
            self._wait(lambda: self._machine.is_ready, deadline)
            if self._trouble is not None:
                return {"error": self._trouble}
            if self._machine.is_ready or self._ended is not None:
                return {"ok": True, "stopped": self._ended or ""}
            return self._diagnosis()

    def close_epoch(self, epoch: int, deadline: float) -> Message:
        """The reply to `close`."""
        with self._changed:
            self._handle(steps.CloseAsked(epoch))
            self._wait(lambda: epoch in self._closed, deadline)
            closed = self._closed.get(epoch)
            if closed is not None:
                told = {"steps": closed.steps, "rows": dict(closed.rows)}
                return {"ok": True, **told, "left_out": closed.left_out, "stopped": ""}
            if self._trouble is not None:
                return {"error": self._trouble}
            if self._ended is not None:
                # Of an epoch that nobody closes there are no numbers.
                stopped = self._ended or "the train has ended"
                return {"ok": True, "steps": None, "rows": {}, "left_out": 0, "stopped": stopped}
            return self._diagnosis()

    def end(self, reason: str) -> None:
        """For all workers. The second time changes nothing."""
        with self._changed:
            self._handle(steps.EndAsked(reason))

    def join(self, timeout: float) -> None:
        """Wait until the workers have heard that it is over, and the links' threads are gone."""
        deadline = time.monotonic() + timeout
        for link in self._links.values():
            link.join(max(0.0, deadline - time.monotonic()))

    def state(self) -> Message:
        """The reply to `state`."""
        with self._changed:
            members = {name: {"connected": link.is_up} for name, link in self._links.items()}
            return {"members": members, "text": self._in_words(), "ended": self._ended}

    def _diagnosis(self) -> Message:
        return {"error": "; ".join(self._in_words()) or "nobody knows what it waits for"}

    def _in_words(self) -> list[str]:
        problems = [link.problem for link in self._links.values() if link.problem]
        return [*self._machine.diagnosis(time.monotonic()), *problems]

    def _wait(self, is_answered: Callable[[], bool], deadline: float) -> None:
        self._changed.wait_for(
            lambda: is_answered() or self._ended is not None,
            max(0.0, deadline - time.monotonic()),
        )

    def _heard(self, worker: str, message: Message) -> None:
        """Called by the links' threads."""
        with self._changed:
            self._handle(_event(worker, message))

    def _handle(self, event: steps.Event) -> None:
        self._interpret(self._machine.handle(event, time.monotonic()))

    def _interpret(self, effects: tuple[steps.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case steps.Say():
                    self._links[effect.worker].say(effect.message)
                case steps.Ready():
                    pass  # whoever waits looks at the machine
                case steps.Closed():
                    self._closed[effect.epoch] = effect
                    while len(self._closed) > steps.ANSWERS_KEPT:
                        del self._closed[min(self._closed)]
                case steps.Trouble():
                    self._trouble = effect.text
                case steps.Ended():
                    self._ended = effect.reason
                    for link in self._links.values():
                        link.end()
        if effects:
            self._changed.notify_all()


def _event(worker: str, message: Message) -> steps.Event:
    """Raises ConnectionError for what no worker says."""
    try:
        match message["say"]:
            case "opened":
                return steps.Opened(worker)
            case "reads":
                return steps.Reads(worker, message["batch_size"], bool(message["equal"]))
            case "arrived":
                return steps.Arrived(worker, int(message["epoch"]), int(message["rows"]))
            case "frozen":
                return steps.Frozen(worker, int(message["epoch"]), int(message["rows"]))
            case "moved":
                return steps.Moved(worker, int(message["epoch"]), int(message["rows"]))
            case "stopped":
                return steps.Stopped(worker, str(message["reason"]))
            case "gone":
                return steps.Gone(worker, str(message["reason"]))
    except (KeyError, TypeError, ValueError):
        pass
    raise ConnectionError(f"{worker} says what is not known here: {str(message)[:80]}")


class KeeperDesk:
    """Answers the driver's control calls. Whichever member gets them is the keeper."""

    def __init__(self, key: FeedKey, boot_id: str) -> None:
        self._key = key
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._trains: dict[str, KeptTrain] = {}  # the latest of each feed
        self._leaving: deque[KeptTrain] = deque()
        self._closed: str | None = None

    def serve(self, hello: Mapping[str, Any], connection: Connection) -> None:
        """All of one connection of kind "control": one request, one reply."""
        connection.send({"ok": True})
        request = connection.receive(_REQUEST_TIMEOUT)
        if request is not None:
            try:
                reply = self._answer(request)
            except (KeyError, TypeError, ValueError) as error:
                reply = {"error": f"a call not understood: {error!r}"}
            connection.send(reply)

    def close(self, reason: str) -> None:
        """Rank 0 ends, and with it every train. On return the workers have been told."""
        with self._lock:
            self._closed = self._closed or reason
            trains = [*self._trains.values(), *self._leaving]
        for train in trains:
            train.end(reason)
        deadline = time.monotonic() + _LINKS_TIMEOUT
        for train in trains:
            train.join(max(0.0, deadline - time.monotonic()))

    def _answer(self, request: Message) -> Message:
        feed = str(request["feed"])
        deadline = time.monotonic() + float(request["timeout"])
        match request["call"]:
            case "open":
                train = self._open(feed, request)
                if isinstance(train, dict):
                    return train
                reply = train.wait_until_ready(deadline)
                if request.get("over"):  # in an earlier generation of the gang
                    train.end("")
                return reply
            case "state":
                known = self._trains.get(feed)
                return known.state() if known else {"members": {}, "text": ["no train is open"]}
        known = self._trains.get(feed)
        if known is None or known.number != int(request["train"]):
            number = f"train {known.number}" if known else "none"
            return {"error": f"train {request['train']} is not open here, but {number}"}
        match request["call"]:
            case "close":
                return known.close_epoch(int(request["epoch"]), deadline)
            case "end":
                known.end(str(request["reason"]))
                return {"ok": True}
        return {"error": f"no such call: {request['call']!r}"}

    def _open(self, feed: str, request: Message) -> KeptTrain | Message:
        number = int(request["train"])
        workers = [FeedEndpoint.from_json(each) for each in request["workers"]]
        epochs = None if request["epochs"] is None else int(request["epochs"])
        opening = {str(name): int(request[name]) for name in _OPENING if name in request}
        with self._lock:
            if self._closed is not None:
                return {"ok": True, "stopped": self._closed}
            before = self._trains.get(feed)
            if before is not None and before.number == number:
                return before  # the reply to the first call was lost
            if before is not None and before.number > number:
                return {"error": f"train {before.number} of feed {feed!r} has begun"}
            train = KeptTrain(feed, number, epochs, workers, self._key, self._boot_id, opening)
            self._trains[feed] = train
            if before is not None:
                self._leaving.append(before)
        if before is not None:
            before.end(f"train {number} has begun")
            before.join(_LINKS_TIMEOUT)
            with self._lock:
                self._leaving.remove(before)
        train.start()
        return train
