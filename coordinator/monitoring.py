"""Watches over a coordinator that serves: is it alive, is it ready, how late is its event loop?

The event loop's side looks every quarter of a second, and takes a snapshot each second; HTTP
(``metrics_server``) and gRPC's health say what was seen last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from coordinator import event_kinds, snapshot
from coordinator.metrics_server import MetricsServer, Page, Pages

if TYPE_CHECKING:
    from coordinator.engine import Engine
    from coordinator.server import Server

_log = logging.getLogger("tflease.coordinator")

LOOK_INTERVAL = 0.25
"""Seconds between two looks at the clock: what comes later than that is the event loop's lag."""

_LOOKS_PER_SNAPSHOT = 4

ALIVE_WITHIN = 10.0
"""Seconds of silence after which an event loop counts as dead. Whoever restarts the process then
does no harm to runs that have a journal; sooner it would hit one that only has much to do."""

_PLAIN = "text/plain; charset=utf-8"


def _never() -> bool:
    return False


class Monitoring:
    """Of one server. Made in its event loop. ``is_ending``: whether it was told to end, and takes
    no new runs."""

    def __init__(self, server: Server, is_ending: Callable[[], bool] = _never) -> None:
        self._server = server
        self._engine: Engine = server.engine
        self._is_ending = is_ending
        self._turned_at = time.monotonic()
        self._not_ready = ""
        self._problem = ""
        self._snapshot = snapshot.take(self._engine, server.limiter, "")

    @asynccontextmanager
    async def running(self, where: tuple[str, int] | None = None) -> AsyncIterator[str]:
        """Around the time in which it serves; gives the URL. ``where``: host and port for HTTP,
        0: any that is free; None: there is none, and the URL is empty. Raises
        CoordinatorUnavailable when it cannot listen there."""
        serving = None if where is None else MetricsServer(*where, pages=self._pages())
        looking = asyncio.create_task(self._keep_looking())
        try:
            yield "" if serving is None else serving.url
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            if serving is not None:
                await asyncio.to_thread(serving.close)

    # -- in the event loop -----------------------------------------------------------------

    async def _keep_looking(self) -> None:
        lag = self._engine.tallies.lag
        while True:
            for _ in range(_LOOKS_PER_SNAPSHOT):
                due_at = time.perf_counter() + LOOK_INTERVAL
                await asyncio.sleep(LOOK_INTERVAL)
                lag.observe(max(0.0, time.perf_counter() - due_at))
                self._turned_at = time.monotonic()
            try:
                await self.look()
            except Exception:  # a bug in here must not pass for a dead coordinator
                _log.exception("could not look at the coordinator; trying again")

    async def look(self) -> None:
        """Takes a snapshot; health and the record of events learn what has changed."""
        problem = self._engine.journal_problem
        if bool(problem) != bool(self._problem):
            if problem:
                self._engine.tell(event_kinds.JOURNAL_FAILED, problem)
            else:
                self._engine.tell(event_kinds.JOURNAL_RECOVERED, "the journal is written again")
        before, self._problem = self._not_ready, problem
        self._not_ready = self._why_not_ready()
        self._snapshot = snapshot.take(self._engine, self._server.limiter, self._not_ready)
        if bool(self._not_ready) != bool(before):
            await self._server.set_ready(not self._not_ready)

    def _why_not_ready(self) -> str:
        if self._is_ending():
            return "it was told to end, and takes no new runs"
        return f"its journal cannot be written: {self._problem}" if self._problem else ""

    # -- in the threads of HTTP ------------------------------------------------------------

    def _pages(self) -> Pages:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        from coordinator import metrics

        registry = metrics.registry(lambda: self._snapshot, self._engine.tallies)

        def numbers() -> Page:
            return Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))

        return {"/metrics": numbers, "/healthz": self._alive, "/readyz": self._ready}

    def _alive(self) -> Page:
        return _verdict(self._why_dead())

    def _ready(self) -> Page:
        return _verdict(self._why_dead() or self._not_ready)

    def _why_dead(self) -> str:
        silent = time.monotonic() - self._turned_at
        if silent < ALIVE_WITHIN:
            return ""
        return f"its event loop has not turned for {silent:.0f} s"


def _verdict(problem: str) -> Page:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return Page(status, _PLAIN, f"{problem or 'ok'}\n".encode())
