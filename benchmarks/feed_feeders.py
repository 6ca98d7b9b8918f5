"""The Spark tasks of the ways that tflease's feed is compared with.

Functions in functions: only such ones travel by value, and executors need not have the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def bare_feeder(address: str) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """For ``mapInArrow``: what Spark hands over, written to the socket as it is."""

    def feed(batches: Iterator[Any]) -> Iterator[Any]:
        import socket

        import pyarrow as pa

        class Socket:
            """As an Arrow file; ``sendall`` because a write may be partial."""

            closed = False

            def __init__(self, inner: socket.socket) -> None:
                self._inner = inner

            def write(self, data: Any) -> int:
                self._inner.sendall(data)
                return len(data)

            def flush(self) -> None:
                pass

        rows = 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            writer = None
            for batch in batches:
                if writer is None:
                    writer = pa.ipc.new_stream(pa.PythonFile(Socket(connection), "w"), batch.schema)
                writer.write_batch(batch)
                rows += batch.num_rows
            if writer is not None:
                writer.close()
        yield pa.RecordBatch.from_pydict({"rows": pa.array([rows], pa.int64())})

    return feed


def queue_feeder(address: str, authkey: bytes) -> Callable[[Iterator[Any]], None]:
    """For ``RDD.foreachPartition``, as TensorFlowOnSpark's ``TFSparkNode.train``: a ``put`` for
    each row, then ``join``, which it looks at once a second."""

    def feed(rows: Iterator[Any]) -> None:
        import threading
        import time
        from multiprocessing.managers import BaseManager

        class QueueManager(BaseManager):
            pass

        QueueManager.register("get_queue")
        manager = QueueManager(address=address, authkey=authkey)
        manager.connect()
        queue: Any = manager.get_queue()  # type: ignore[attr-defined]
        for row in rows:
            x = row[0]
            queue.put((bytes(x) if isinstance(x, bytearray) else x, row[1]), block=True)
        joining = threading.Thread(target=queue.join)
        joining.start()
        while joining.is_alive():
            time.sleep(1)

    return feed
