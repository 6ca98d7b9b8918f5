"""Questions to members about their logs, and who waits for the answers (E3).

A log is read where it is, when somebody asks. Nothing of it passes through the machine: no run
depends on it, and an agent that does not answer costs the reader a few seconds and nobody else
anything (E4).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from coordinator.core.errors import LogUnavailable
from coordinator.core.log_values import LogChunk, ReadLog

ANSWER_TIMEOUT = 5.0
"""Seconds that an agent has to read a piece of a file."""

MAX_CHUNK_BYTES = 1024 * 1024
"""The most that one answer may hold."""


def wanted_bytes(max_bytes: int) -> int:
    """So many are asked for when a reader wants ``max_bytes``; 0 or less: as many as it may be."""
    return min(max_bytes, MAX_CHUNK_BYTES) if max_bytes > 0 else MAX_CHUNK_BYTES


class LogRequests:
    """Use inside one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[LogChunk]] = {}

    async def ask(
        self, send: Callable[[ReadLog], None], offset: int | None, max_bytes: int
    ) -> LogChunk:
        """``send`` puts the question into the member's session. Raises LogUnavailable when the
        agent says why not, or says nothing in time."""
        question = ReadLog(uuid.uuid4().hex, offset, wanted_bytes(max_bytes))
        answer: asyncio.Future[LogChunk] = asyncio.get_running_loop().create_future()
        self._waiting[question.request_id] = answer
        try:
            send(question)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise LogUnavailable(
                f"its agent did not answer within {ANSWER_TIMEOUT:g} s; it may be lost: ask for "
                "the run's status"
            ) from None
        finally:
            del self._waiting[question.request_id]

    def answered(self, request_id: str, chunk: LogChunk) -> None:
        """An answer has come; one that nobody waits for any more is dropped."""
        answer = self._waiting.get(request_id)
        if answer is not None and not answer.done():
            answer.set_result(chunk)

    def refused(self, request_id: str, why: str) -> None:
        """The agent cannot read it."""
        answer = self._waiting.get(request_id)
        if answer is not None and not answer.done():
            answer.set_exception(LogUnavailable(why))
