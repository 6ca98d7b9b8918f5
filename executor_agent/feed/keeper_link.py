"""The keeper's end of its connection to one worker, for one train."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.stream import Interrupted, Waker
from executor_agent.feed.wire import Connection, Message, dial

_DIAL_TIMEOUT = 10.0
_DIAL_INTERVAL = 0.5
"""Seconds to the next attempt: a worker that is still starting does not listen yet."""


class KeeperLink:
    """Says what is put into its outbox, in order, once the worker can be reached. ``heard``: called
    in the link's thread with what the worker says, and with ``{say: "gone", reason}`` at last
    unless the train has ended. ``problem``: why there is no connection yet."""

    def __init__(
        self,
        worker: FeedEndpoint,
        key: FeedKey,
        boot_id: str,
        hello: Mapping[str, Any],
        heard: Callable[[str, Message], None],
    ) -> None:
        self._worker = worker
        self._key = key
        self._boot_id = boot_id
        self._hello = hello
        self._heard = heard
        self._lock = threading.Lock()
        self._outbox: deque[Mapping[str, Any]] = deque()
        self._is_ended = False
        self._waker = Waker()
        self._over = threading.Event()
        self.is_up = False
        self.problem = ""
        self._thread = threading.Thread(
            target=self._run, name=f"tflease-feed-keeper-{worker.member}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def say(self, message: Mapping[str, Any]) -> None:
        """Never blocks."""
        with self._lock:
            self._outbox.append(message)
        self._waker.set()

    def end(self) -> None:
        """Nothing more will be said. A worker that cannot be reached is given up."""
        with self._lock:
            self._is_ended = True
        self._over.set()
        self._waker.set()

    def join(self, timeout: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        connection = self._dial()
        if connection is not None:
            self.is_up = True
            try:
                self._converse(connection)
            except Exception as error:  # of ours, too: nobody else would tell the driver
                self._lose(str(error) or repr(error))
            finally:
                self.is_up = False
                connection.finish()
        self._waker.close()

    def _dial(self) -> Connection | None:
        """None: the train ended before the worker could be reached."""
        while not self._over.is_set():
            try:
                connection = dial(
                    self._worker,
                    self._key,
                    self._hello,
                    timeout=_DIAL_TIMEOUT,
                    boot_id=self._boot_id,
                )
            except OSError as error:
                self.problem = str(error)
                self._over.wait(_DIAL_INTERVAL)
            else:
                self.problem = ""
                return connection
        return None

    def _converse(self, connection: Connection) -> None:
        while True:
            self._waker.clear()
            with self._lock:
                waiting, is_ended = list(self._outbox), self._is_ended
                self._outbox.clear()
            for message in waiting:
                connection.send(message)
            if is_ended:
                return
            connection.listen_to(self._waker)
            try:
                connection.wait_readable()
            except Interrupted:
                continue
            finally:
                connection.listen_to(None)
            said = connection.receive()
            if said is None:
                raise ConnectionError("it closed the connection")
            self._heard(self._worker.member, said)

    def _lose(self, reason: str) -> None:
        with self._lock:
            is_ended = self._is_ended
        if not is_ended:
            self._heard(self._worker.member, {"say": "gone", "reason": reason})
