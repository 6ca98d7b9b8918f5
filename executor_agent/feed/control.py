"""Calls to a member's feeds: one request, one reply.

The driver makes them itself where it reaches the member, otherwise in a Spark task, which does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.wire import FeedRefused, FeedUnreachable, dial
from executor_agent.linux import boot_id

if TYPE_CHECKING:
    import pyarrow as pa

CONTROL_ROW_SCHEMA = "reply string"
"""Spark's DDL of the row that a `ControlTask` returns; `reply_of` reads it."""

_DIAL_TIMEOUT = 20.0
_MARGIN = 10.0
"""Seconds that a reply may take beyond the request's own timeout, after which the member gives its
diagnosis instead."""


def call(
    endpoint: FeedEndpoint, key: FeedKey, request: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
    """The reply to ``{call: ..., ...}``. ``{error: ...}`` is one, too: the member's diagnosis, also
    of what has not happened within ``timeout`` seconds.

    Raises:
        FeedUnreachable: the member does not answer, or went away before it replied.
        FeedRefused: somebody else answers there, or the member does not take us.
    """
    dialing = min(_DIAL_TIMEOUT, timeout + _MARGIN)
    connection = dial(endpoint, key, {"kind": "control"}, timeout=dialing, boot_id=boot_id())
    try:
        connection.send({**request, "timeout": timeout}, dialing)
        reply = connection.receive(timeout + _MARGIN)
    except OSError as error:
        raise FeedUnreachable(
            f"{endpoint.member} did not reply to {request.get('call')!r}: {error}"
        ) from error
    finally:
        connection.close()
    if reply is None:
        raise FeedUnreachable(
            f"{endpoint.member} went away before it replied to {request.get('call')!r}"
        )
    return reply


@dataclass(frozen=True, slots=True)
class ControlTask:
    """Makes one call from a Spark task, for a driver that does not reach the member.

    For ``DataFrame.mapInArrow`` on one partition with at least one row. Never fails its task for a
    call that failed: Spark would only repeat it.
    """

    endpoint: FeedEndpoint
    key: FeedKey
    request: Mapping[str, Any]
    timeout: float

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        rows = sum(batch.num_rows for batch in batches)
        if rows:
            yield pa.RecordBatch.from_pydict({"reply": [self.answer()]})

    def answer(self) -> str:
        """What `reply_of` reads."""
        try:
            return json.dumps({"reply": call(self.endpoint, self.key, self.request, self.timeout)})
        except FeedRefused as error:
            return json.dumps({"refused": str(error)})
        except FeedUnreachable as error:
            return json.dumps({"unreachable": str(error)})


def reply_of(text: str) -> dict[str, Any]:
    """What `call` returned, or raises what it raised, in the task."""
    answer = json.loads(text)
    if "refused" in answer:
        raise FeedRefused(answer["refused"])
    if "unreachable" in answer:
        raise FeedUnreachable(answer["unreachable"])
    return dict(answer["reply"])
