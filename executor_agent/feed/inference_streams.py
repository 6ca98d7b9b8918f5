"""What is said on the two connections of an inference stream, at the member's end.

    "infer"    task -> member   an Arrow stream of rows, then {rows}: how many; then its end
    "results"  member -> task   {say: "results", rows} and an Arrow stream of so many rows, again
                                and again; {say: "state", text} while there are none for a while;
                                at last {say: "end", rows} or {say: "error", text}

The end of an Arrow stream proves nothing: only the frame after it does. The task holds "infer" open
until it has all results, so that its death is seen on it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from executor_agent.feed.inference_queue import Ending, InferenceQueue, Stream
from executor_agent.feed.wire import Connection, Message

if TYPE_CHECKING:
    from executor_agent.feed.inference import InferenceFeeds

INFER, RESULTS = "infer", "results"
"""The two halves of a stream: kinds of connections."""

STATE_INTERVAL = 10.0
"""Seconds without results after which the task is told what it waits for."""

_RESULTS_BYTES = 4 << 20  # of one Arrow stream of results
_GONE = "its Spark task is gone"


def take_rows(feeds: InferenceFeeds, hello: Message, connection: Connection) -> None:
    """Handles "infer": reads rows for as long as there is room for them."""
    name = str(hello.get("stream"))
    queue = feeds.queue(str(hello.get("feed")))
    if not _join(queue, name, INFER, connection):
        return
    try:
        reader = connection.reader()
        if not queue.open(name, reader.schema):
            return
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            if batch.num_rows and not queue.put(name, batch):
                return  # the "results" half says why
        said = connection.receive()
        if said is None:
            return
        if said.get("rows") != rows:
            queue.drop(name, f"{rows:,} rows came, of the {said.get('rows'):,} that were sent")
            return
        queue.end(name)
        connection.receive()  # until the task closes it, or is gone
    except (OSError, pa.ArrowInvalid):
        pass  # the task is gone, in the middle of something
    finally:
        queue.drop(name, _GONE)


def give_results(feeds: InferenceFeeds, hello: Message, connection: Connection) -> None:
    """Handles "results": sends them as they come."""
    name = str(hello.get("stream"))
    queue = feeds.queue(str(hello.get("feed")))
    stream = _join(queue, name, RESULTS, connection)
    if stream is None:
        return
    try:
        while True:
            found = queue.next_results(stream, _RESULTS_BYTES, STATE_INTERVAL)
            if isinstance(found, list):
                _send_results(connection, found)
                queue.sent(name, stream, found)
            elif found is None:
                connection.send({"say": "state", "text": queue.describe()})
            else:
                connection.send(_last_word(found))
                return
    except OSError:
        queue.drop(name, _GONE)


def _last_word(ending: Ending) -> Message:
    if ending.failure:
        return {"say": "error", "text": ending.failure}
    return {"say": "end", "rows": ending.rows}


def _send_results(connection: Connection, batches: list[pa.RecordBatch]) -> None:
    rows = sum(batch.num_rows for batch in batches)
    connection.send({"say": "results", "rows": rows})
    with connection.writer(batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _join(queue: InferenceQueue, name: str, half: str, connection: Connection) -> Stream | None:
    try:
        stream = queue.join(name, half)
    except ValueError as error:
        connection.send({"error": str(error)})
        return None
    connection.send({"action": "go"})
    return stream
