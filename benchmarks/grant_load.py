"""One process of clients that ask for leases, so many at a time, as fast as they are answered.

``python -m benchmarks.grant_load`` is told whom to ask, and with each line for what; after each it
says how long every answer took, what was granted, and whether it was cut off before all were
answered. One thread, one `epoll`, calls by hand (``grpc_by_hand``): the same for the coordinator
and for etcd.
"""

from __future__ import annotations

import itertools
import select
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from benchmarks import etcd
from benchmarks.client_process import Commands, say
from benchmarks.grpc_by_hand import Connection, ConnectionLost, Ended, Message
from coordinator.security import call_metadata
from coordinator.v1 import gpu_lease_service_pb2 as pb

ACQUIRE = "/coordinator.v1.GpuLeaseService/AcquireGpus"
USE = "/coordinator.v1.GpuLeaseService/UseGpus"
_MOST_CONNECTIONS = 4
_LATEST_ANSWER = 60.0  # seconds without any


class Kind(Protocol):
    """What is asked for. ``path``: the call."""

    path: str

    def request(self, name: str) -> bytes:
        """For the lease of this name."""

    def granted(self, answer: bytes) -> tuple[str, int]:
        """The name again, and a number that no two grants may share."""


class Gpus:
    """The GPUs of our book, each for a request of its own: the request's id is the GPU's."""

    path = ACQUIRE

    def request(self, name: str) -> bytes:
        request = pb.AcquireGpusRequest(request_id=name, holder="measured")
        request.wants.add(who="one", uuids=[name], count=1)
        return request.SerializeToString()

    def granted(self, answer: bytes) -> tuple[str, int]:
        [grant] = pb.AcquireGpusResponse.FromString(answer).grants
        return grant.uuid, grant.token.number


class EtcdLeases:
    """Leases of etcd's, whose ids it chooses."""

    path = etcd.GRANT

    def request(self, name: str) -> bytes:
        return bytes(etcd.GrantRequest(TTL=etcd.TTL).SerializeToString())

    def granted(self, answer: bytes) -> tuple[str, int]:
        lease = etcd.GrantResponse.FromString(answer).ID
        return str(lease), lease


class Load:
    """``outstanding`` calls on a few connections; who is answered asks for the next."""

    def __init__(self, connections: Iterable[Connection], kind: Kind) -> None:
        self._connections = list(connections)
        self._kind = kind
        self._asked: dict[tuple[Connection, int], float] = {}
        self.took: list[float] = []
        self.grants: list[tuple[str, int]] = []

    def run(self, names: Iterable[str], outstanding: int) -> None:
        """All of them. Raises ConnectionLost: cut off, or refused."""
        left = deque(names)
        poll = select.epoll()
        by_descriptor = {each.fileno(): each for each in self._connections}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        for number in range(min(outstanding, len(left))):
            self._ask(self._connections[number % len(self._connections)], left.popleft())
        while self._asked:
            ready = poll.poll(_LATEST_ANSWER)
            if not ready:
                raise ConnectionLost(f"no answer for {_LATEST_ANSWER:g} s")
            for descriptor, _ in ready:
                self._take(by_descriptor[descriptor], left)
        poll.close()

    def _ask(self, connection: Connection, name: str) -> None:
        stream = connection.ask(self._kind.path, self._kind.request(name))
        self._asked[connection, stream] = time.monotonic()

    def _take(self, connection: Connection, left: deque[str]) -> None:
        for news in connection.receive():
            asked_at = self._asked.get((connection, news.stream))
            match news:
                case Message(data=data) if asked_at is not None:
                    self.took.append(time.monotonic() - asked_at)
                    self.grants.append(self._kind.granted(data))
                    del self._asked[connection, news.stream]
                    if left:
                        self._ask(connection, left.popleft())
                case Ended() if asked_at is not None:
                    raise ConnectionLost("a request was refused")


class StreamLoad:
    """The same over one ``UseGpus`` stream for each connection: ``outstanding`` questions, and who
    is answered asks for the next. Answers that come together are followed by questions that go
    together."""

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._streams = {each: each.call(USE) for each in connections}
        self._numbers = itertools.count()
        self._asked: dict[int, float] = {}
        self.took: list[float] = []
        self.grants: list[tuple[str, int]] = []

    def run(self, names: Iterable[str], outstanding: int) -> None:
        """All of them. Raises ConnectionLost: cut off, or refused."""
        left = deque(names)
        poll = select.epoll()
        by_descriptor = {each.fileno(): each for each in self._streams}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        share = -(-outstanding // len(self._streams))
        for connection in self._streams:
            self._ask(connection, left, min(share, outstanding - len(self._asked)))
        while self._asked:
            ready = poll.poll(_LATEST_ANSWER)
            if not ready:
                raise ConnectionLost(f"no answer for {_LATEST_ANSWER:g} s")
            for descriptor, _ in ready:
                connection = by_descriptor[descriptor]
                self._ask(connection, left, self._take(connection))
        poll.close()

    def _ask(self, connection: Connection, left: deque[str], count: int) -> None:
        request = pb.UseGpusRequest()
        for _ in range(min(count, len(left))):
            number, name = next(self._numbers), left.popleft()
            question = request.questions.add(number=number)
            question.acquire.request_id, question.acquire.holder = name, "measured"
            question.acquire.wants.add(who="one", uuids=[name], count=1)
            self._asked[number] = time.monotonic()
        if request.questions:
            connection.send(self._streams[connection], request.SerializeToString())

    def _take(self, connection: Connection) -> int:
        """How many were answered."""
        count = 0
        for news in connection.receive():
            if not isinstance(news, Message):
                raise ConnectionLost("the stream has ended")
            now = time.monotonic()
            for answer in pb.UseGpusResponse.FromString(news.data).answers:
                if not answer.HasField("acquired"):
                    raise ConnectionLost(answer.refused.message)
                [grant] = answer.acquired.grants
                self.took.append(now - self._asked.pop(answer.number))
                self.grants.append((grant.uuid, grant.token.number))
                count += 1
        return count


def _load(kind: str, connections: Iterable[Connection]) -> Load | StreamLoad:
    if kind == "gpus by stream":
        return StreamLoad(connections)
    return Load(connections, EtcdLeases() if kind == "etcd" else Gpus())


def _round(config: Mapping[str, Any], command: Mapping[str, Any]) -> dict[str, Any]:
    outstanding = int(command["outstanding"])
    metadata = call_metadata(config["token"]) if "token" in config else ()
    connections = [
        Connection(config["host"], config["port"], metadata)
        for _ in range(min(outstanding, _MOST_CONNECTIONS))
    ]
    load = _load(config["kind"], connections)
    began_at, cut_off = time.monotonic(), ""
    try:
        load.run(command["names"], outstanding)
    except OSError as error:
        cut_off = str(error)
    finally:
        for each in connections:
            each.close()
    took = [round(each, 6) for each in load.took]
    seconds = time.monotonic() - began_at
    return {"seconds": seconds, "took": took, "grants": load.grants, "cut_off": cut_off}


def main() -> int:
    """The process."""
    commands = Commands()
    config = commands.first()
    while not commands.is_over:
        for command in commands.take():
            try:
                say(_round(config, command))
            except (OSError, ValueError) as error:
                say({"failure": f"{config['kind']}: {error}"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
