"""A feed in memory: what `Feed`, `Train` and `EpochReader` are for a consumer, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass
class FakeReader:
    number: int
    pieces_: Sequence[pa.RecordBatch | threading.Event]
    feed: FakeFeed

    def chunks(self) -> Iterator[pa.RecordBatch]:
        for piece in self.pieces_:
            if isinstance(piece, threading.Event):
                assert piece.wait(30)
            elif self.feed.terminated is None:
                yield piece

    def pieces(self, idle: float) -> Iterator[pa.RecordBatch | None]:
        for piece in self.pieces_:
            if isinstance(piece, threading.Event):
                while not piece.wait(0.01):
                    yield None
            elif self.feed.terminated is None:
                yield piece


@dataclass
class FakeTrain:
    number: int
    known: pa.Schema | None
    all_readers: Sequence[FakeReader]
    feed: FakeFeed

    def wait_for_schema(self) -> pa.Schema | None:
        return self.known

    def epoch_readers(self) -> Iterator[FakeReader]:
        assert not self.feed.is_read, "two readers at once"
        self.feed.is_read = True
        try:
            for reader in self.all_readers:
                if self.feed.terminated is None:
                    yield reader
        finally:
            self.feed.is_read = False
            self.feed.reader_gone.set()

    def readers(self, idle: float) -> Iterator[FakeReader | None]:
        yield None
        for reader in self.epoch_readers():
            yield reader
            yield None


class FakeFeed:
    """One train. An event among the pieces of an epoch is waited for."""

    def __init__(
        self,
        *epochs: Sequence[pa.RecordBatch | threading.Event],
        schema: pa.Schema | None = None,
        stopped: bool = False,
    ) -> None:
        first = (each for epoch in epochs for each in epoch if isinstance(each, pa.RecordBatch))
        self._schema = schema or next((batch.schema for batch in first), None)
        self._epochs = epochs
        self._stopped = stopped
        self.opened: list[tuple[int | None, bool]] = []
        self.waited = 0
        self.is_read = False
        self.reader_gone = threading.Event()
        self.terminated: str | None = None

    def open(self, batch_size: int | None, equal_steps: bool) -> None:
        self.opened.append((batch_size, equal_steps))

    def wait_for_train(self, stopping: Callable[[], bool]) -> FakeTrain | None:
        assert self.opened, "opened first"
        self.waited += 1
        if self._stopped or stopping():
            return None
        all_readers = [FakeReader(n, pieces, self) for n, pieces in enumerate(self._epochs)]
        return FakeTrain(1, self._schema, all_readers, self)

    def terminate(self, reason: str = "enough") -> None:
        self.terminated = reason


def numbers(*values: int) -> pa.RecordBatch:
    """A column "n"."""
    return pa.record_batch({"n": pa.array(values, pa.int64())})


def never() -> bool:
    return False
