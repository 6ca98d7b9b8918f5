"""A worker that takes rows as it is told to: it speaks the protocol, and keeps no accounts."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.stream import ByteStream
from executor_agent.feed.wire import Connection, welcome
from executor_agent.linux import boot_id

KEY = FeedKey(b"s" * 32, certificate="")


@dataclass
class Scene:
    """What a worker does. ``gate``: a permit for each batch it takes; None: all at once.
    ``last_batch`` and ``then``: after so many batches "stop", "error" or "die"."""

    reply: dict[str, Any] = field(default_factory=lambda: {"action": "go", "taken": [], "rows": 0})
    gate: threading.Semaphore | None = None
    last_batch: int | None = None
    then: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)  # to control calls


class FakeWorker:
    def __init__(self, member: str, directory: Path, scene: Scene | None = None) -> None:
        self.scene = scene or Scene()
        self.hellos: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.batches: list[tuple[int, pa.RecordBatch]] = []
        self.ended_streams = 0
        self.changed = threading.Condition()
        path = directory / member.replace(":", "-")
        self.endpoint = FeedEndpoint(member, "127.0.0.1", 9, str(path), boot_id())
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[Connection] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def offsets(self) -> list[tuple[int, int]]:
        """The rows that came, as ranges, in the order of the partition."""
        return sorted((offset, offset + batch.num_rows) for offset, batch in self.batches)

    def values(self, column: str) -> list[Any]:
        return [value for _, batch in self.batches for value in batch.column(column).to_pylist()]

    def wait_for(self, count: int, deadline: float = 10.0) -> None:
        """Until so many batches are here."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.batches) >= count, deadline)

    def wait_for_end(self, deadline: float = 10.0) -> None:
        """Until a stream has ended as it should."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.ended_streams > 0, deadline)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            connection.abort()
        if self.scene.gate is not None:
            self.scene.gate.release(1000)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(ByteStream(sock))
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        with suppress(OSError, pa.ArrowInvalid):
            hello = welcome(connection, KEY, self.endpoint.member, lambda: None)
            self.hellos.append(hello)
            if hello["kind"] == "control":
                self._answer(connection)
            else:
                connection.send(self.scene.reply)
                if self.scene.reply["action"] == "go":
                    self._take(connection)
        connection.close()

    def _answer(self, connection: Connection) -> None:
        connection.send({})
        request = connection.receive(5)
        assert request is not None
        self.requests.append(json.loads(json.dumps(request)))
        if self.scene.answers:
            connection.send(self.scene.answers.pop(0))

    def _take(self, connection: Connection) -> None:
        reader = connection.reader()
        rows, count = int(self.scene.reply["rows"]), 0
        while True:
            if count == self.scene.last_batch:
                self._end(connection)
                return
            try:
                batch, metadata = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                with self.changed:
                    self.ended_streams += 1
                    self.changed.notify_all()
                return
            if self.scene.gate is not None:
                self.scene.gate.acquire()
            with self.changed:
                self.batches.append((int(metadata[b"offset"]), batch))
                self.changed.notify_all()
            rows, count = rows + batch.num_rows, count + 1
            connection.send({"took": batch.num_rows, "rows": rows})

    def _end(self, connection: Connection) -> None:
        if self.scene.then != "die":
            connection.send({self.scene.then: f"{self.scene.then} was said"})
            connection.finish(5)
