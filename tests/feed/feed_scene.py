"""Members that take rows, in this process, over real sockets and real TLS; and what feeds them."""

from __future__ import annotations

import base64
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from coordinator.spark.feed.keys import make_key
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.control import call
from executor_agent.feed.inbox import Feed
from executor_agent.feed.server import FeedServer
from executor_agent.feed.wire import Connection, dial
from executor_agent.linux import boot_id

DEADLINE = 20.0
SCHEMA = pa.schema([("x", pa.int64())])
THREADS = "tflease-feed-"


@functools.cache
def the_key() -> FeedKey:
    return make_key()


def batch_of(start: int, rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(start, start + rows), pa.int64())], schema=SCHEMA)


def values(batches: list[pa.RecordBatch]) -> list[int]:
    return [value for batch in batches for value in batch.column(0).to_pylist()]


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true result; for what changes without telling anybody."""
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"has not come about: {what or condition}"
        threading.Event().wait(0.005)
    return result


def our_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(THREADS)]


class Background:
    """A call in a thread of the test's; ``result`` waits for it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._outcome: list[Any] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._outcome.append(function(*arguments))
        except BaseException as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(DEADLINE)
        assert self.is_done, "it is still not done"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


class Feeder:
    """The plainest of feeders: one partition, one worker."""

    def __init__(self, connection: Connection, schema: pa.Schema = SCHEMA) -> None:
        self.connection = connection
        self.reply = connection.reply
        self._schema = schema
        self._writer: pa.RecordBatchStreamWriter | None = None

    def send(self, batch: pa.RecordBatch, offset: int) -> None:
        if self._writer is None:
            self._writer = self.connection.writer(self._schema)
        self._writer.write_batch(batch, custom_metadata={"offset": str(offset)})

    def flush(self) -> None:
        """Say that no worker gets any more rows."""
        assert self._writer is not None
        self._writer.write_batch(batch_of(0, 0), custom_metadata={"flush": "1"})

    def answer(self) -> dict[str, Any]:
        answer = self.connection.receive(DEADLINE)
        assert answer is not None, "the worker has closed the connection"
        return answer

    def feed(self, batch: pa.RecordBatch, offset: int) -> dict[str, Any]:
        self.send(batch, offset)
        return self.answer()

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            assert self.connection.receive(DEADLINE) is None
        self.connection.close()


class Scene:
    """``members`` of one run, by name; worker:0 is the keeper."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.key = the_key()
        self.servers: dict[str, FeedServer] = {}
        self._connections: list[Connection] = []

    def member(self, name: str = "worker:0", **options: Any) -> FeedServer:
        folder = self._directory / name.replace(":", "-")
        folder.mkdir()
        server = FeedServer(folder, 0, self.key, member=name, **options)
        server.start()
        self.servers[name] = server
        return server

    def workers(self, count: int) -> list[FeedServer]:
        return [self.member(f"worker:{index}") for index in range(count)]

    def endpoints(self) -> list[FeedEndpoint]:
        return [server.endpoint() for server in self.servers.values()]

    def dial(self, server: FeedServer, hello: dict[str, Any], *, local: bool = True) -> Connection:
        connection = dial(
            server.endpoint(),
            self.key.for_feeders(),
            hello,
            timeout=DEADLINE,
            boot_id=boot_id() if local else "",
        )
        self._connections.append(connection)
        return connection

    def hello(self, schema: pa.Schema = SCHEMA, **changes: Any) -> dict[str, Any]:
        """Of a feeder."""
        return {
            "kind": "feed",
            "feed": "input",
            "train": 1,
            "epoch": 1,
            "partition": 0,
            "attempt": 1,
            "deterministic": True,
            "schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
            **changes,
        }

    def feeder(
        self,
        server: FeedServer,
        *,
        local: bool = True,
        schema: pa.Schema = SCHEMA,
        **changes: Any,
    ) -> Feeder:
        return Feeder(self.dial(server, self.hello(schema, **changes), local=local), schema)

    def control(self, what: str, *, timeout: float = DEADLINE, **request: Any) -> dict[str, Any]:
        """A call of the driver's to the keeper."""
        keeper = self.servers["worker:0"].endpoint()
        whole = {"call": what, "feed": "input", "train": 1, **request}
        return call(keeper, self.key.for_feeders(), whole, timeout)

    def open(self, *, train: int = 1, epochs: int | None = 1) -> dict[str, Any]:
        workers = [endpoint.to_json() for endpoint in self.endpoints()]
        reply = self.control("open", train=train, epochs=epochs, workers=workers)
        assert reply.get("ok"), reply
        return reply

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        # All at once, as members of a run end: one that waits for another would show.
        closing = [
            Background(server.close, "the scene is over") for server in self.servers.values()
        ]
        for each in closing:
            each.result()


@contextmanager
def a_scene() -> Iterator[Scene]:
    """Afterwards no thread of a feed is left."""
    before = set(our_threads())
    with tempfile.TemporaryDirectory(prefix="feed-") as directory:  # a short path, for its sockets
        scene = Scene(Path(directory))
        try:
            yield scene
        finally:
            scene.close()
    left = eventually_none(before)
    assert not left, f"threads left behind: {left}"


def read(server: FeedServer, batch_size: int | None, equal: bool) -> Background:
    return Background(read_all, server.feeds["input"], batch_size, equal)


def give(scene: Scene, server: FeedServer, rows: int, *, partition: int, epoch: int = 1) -> None:
    """A partition of so many rows for one worker; each row has a value of its own."""
    feeder = scene.feeder(server, partition=partition, epoch=epoch)
    for offset in range(0, rows, 10):
        part = min(10, rows - offset)
        feeder.feed(batch_of(1000 * partition + offset, part), offset)
    feeder.end()


def eventually_none(before: set[str]) -> set[str]:
    """A thread that has ended may be listed for a moment."""
    deadline = time.monotonic() + 2.0
    while (left := set(our_threads()) - before) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return left


def read_all(feed: Feed, batch_size: int | None, equal: bool) -> list[list[int]]:
    """What a consumer gets of the next train, by epoch."""
    feed.open(batch_size, equal)
    train = feed.wait_for_train(lambda: False)
    if train is None:
        return []
    return [values(list(epoch.chunks())) for epoch in train.epoch_readers()]
