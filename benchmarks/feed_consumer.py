"""A process that trains, or nearly does, on rows that come the way of others: what tflease's feed
is compared with.

``way`` is "bare", Arrow over a Unix socket into batches that TensorFlow cuts, with nothing around
it (no accounts, no keys, no end of a partition); or "queue", TensorFlowOnSpark's: a queue behind a
manager, of which rows are taken one by one and handed to ``from_generator``, as its examples do.

A child of ``client_process``: the first line is {way, address, kind, size}, then {rows} each time,
answered by {at}: the Unix time at which the last of so many rows had gone through a step.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import JoinableQueue
from multiprocessing.managers import BaseManager
from typing import Any

from benchmarks.client_process import Commands, say

BATCH = 256
AUTHKEY = b"benchmarks"
_CHUNKS = 64  # of about a megabyte each


def steps(dataset: Any, rows: int) -> None:
    """A step for each batch, until so many rows have gone through one."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def step(batch: Any) -> Any:
        return tf.reduce_sum(tf.cast(batch["label"], tf.int64)), tf.reduce_max(batch["x"])

    seen = 0
    for batch in dataset:
        step(batch)
        seen += int(batch["label"].shape[0])
        if seen >= rows:
            return
    raise RuntimeError(f"{seen} rows of {rows}")


def signature(kind: str, size: int, *, batched: bool) -> dict[str, Any]:
    """What ``from_generator`` is told."""
    import tensorflow as tf

    outer = (None,) if batched else ()
    return {
        "x": tf.TensorSpec((*outer, size), tf.dtypes.as_dtype(kind)),
        "label": tf.TensorSpec(outer, tf.int64),
    }


def without_autotune(dataset: Any) -> Any:
    """Whose thread would hold up the end by seconds."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


# --- the bare pipe --------------------------------------------------------------------------------


def arrays(batch: Any, kind: str, size: int) -> dict[str, Any]:
    """Views of what has come."""
    import numpy as np

    x, label = batch.column(0), batch.column(1)
    if kind == "float32":
        values = x.flatten().to_numpy(zero_copy_only=True)
    else:
        offsets = np.frombuffer(x.buffers()[1], np.int32)[x.offset : x.offset + len(x) + 1]
        values = np.frombuffer(x.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return {"x": values.reshape(-1, size), "label": label.to_numpy(zero_copy_only=True)}


def bare(address: str, kind: str, size: int) -> Callable[[int], None]:
    """Rows from whoever connects."""
    import pyarrow as pa
    import tensorflow as tf

    chunks: queue.Queue[Any] = queue.Queue(_CHUNKS)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)

    def read(connection: socket.socket) -> None:
        with connection, pa.ipc.open_stream(connection.makefile("rb")) as batches:
            for batch in batches:
                chunks.put(batch)

    def accept() -> None:
        while True:
            threading.Thread(target=read, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()

    def take(rows: int) -> None:
        def generate() -> Iterator[dict[str, Any]]:
            left = rows
            while left > 0:
                batch = chunks.get()
                left -= batch.num_rows
                yield arrays(batch, kind, size)

        dataset = tf.data.Dataset.from_generator(
            generate, output_signature=signature(kind, size, batched=True)
        )
        steps(without_autotune(dataset.rebatch(BATCH).prefetch(2)), rows)

    return take


# --- TensorFlowOnSpark's --------------------------------------------------------------------------


class QueueManager(BaseManager):
    """As in TensorFlowOnSpark's ``TFManager``: a process of its own with the queue in it."""


@cache
def _the_queue() -> JoinableQueue[Any]:
    return JoinableQueue()


def rows_one_by_one(address: str, kind: str, size: int) -> Callable[[int], None]:
    """Each row by a ``get`` and a ``task_done`` of its own, as ``DataFeed.next_batch`` does it."""
    import tensorflow as tf

    QueueManager.register("get_queue", callable=_the_queue)
    manager = QueueManager(address=address, authkey=AUTHKEY)
    manager.start()
    incoming: Any = manager.get_queue()  # type: ignore[attr-defined]

    def take(rows: int) -> None:
        def generate() -> Iterator[dict[str, Any]]:
            for _ in range(rows):
                x, label = incoming.get(block=True)
                incoming.task_done()
                yield {"x": x if kind == "float32" else list(x), "label": label}

        dataset = tf.data.Dataset.from_generator(
            generate, output_signature=signature(kind, size, batched=False)
        )
        steps(without_autotune(dataset.batch(BATCH)), rows)

    take.manager = manager  # type: ignore[attr-defined]  # lives as long as what uses it
    return take


def main() -> int:
    """The process."""
    commands = Commands()
    config = commands.first()
    import tensorflow as tf

    tf.constant(0)  # what is slow the first time is not measured
    way = {"bare": bare, "queue": rows_one_by_one}[config["way"]]
    take = way(config["address"], config["kind"], config["size"])
    say({"listening": True})
    while not commands.is_over:
        for told in commands.take():
            take(told["rows"])
            say({"at": time.time()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
