"""Serves numbers and health over plain HTTP, from a thread of its own.

It never looks at the engine: whoever answers here has a snapshot, so that a scrape costs the event
loop nothing and an event loop that hangs is seen. No token is asked for: nothing here names a run,
a user or a secret.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import Endpoint

_log = logging.getLogger("tflease.coordinator")

MOST_REQUESTS = 8
"""So many are answered at a time; whoever comes then is hung up on."""

REQUEST_TIMEOUT = 5.0
"""Seconds that somebody has for sending a request and reading the answer, all in all."""

_CLOSE_WITHIN = 0.1  # seconds after which the server looks whether it is to close


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
"""By path. Called in the server's threads."""


class MetricsServer:
    """Listens from its creation until ``close``. ``port``: the one that was bound."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Raises CoordinatorUnavailable when it cannot listen there."""
        address = Endpoint(host, port).address
        try:
            self._server = _Server(host, port, pages)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise CoordinatorUnavailable(f"cannot serve metrics on {address}: {why}") from None
        self.port = int(self._server.server_address[1])
        self.url = f"http://{Endpoint(host, self.port).address}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_CLOSE_WITHIN,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """On return nothing listens. Idempotent."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # whoever sends slowly is not waited for

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._room = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The handler's own timeout is for each read: a byte now and then would keep the place.
        deadline = threading.Timer(REQUEST_TIMEOUT, _hang_up, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a request for metrics failed", exc_info=True)


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT
    server_version = "tflease"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            known = " ".join(self.server.pages)
            text = f"here are {known}\n".encode()
            page = Page(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text)
        else:
            page = make()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
