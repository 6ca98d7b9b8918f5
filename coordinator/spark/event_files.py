"""Members' event files on the driver, while they grow (docs/event-files.md).

A thread receives what the agents send and writes it down. No run depends on it: a disk that is full
or a coordinator that is away costs nothing but time, and what cannot be had is said once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from coordinator.core.errors import (
    CoordinatorUnavailable,
    LimitExceeded,
    TfleaseError,
)
from coordinator.core.model import RunView
from coordinator.file_client import (
    FileClient,
    FileNews,
    Origin,
    PieceCame,
    SenderCame,
    SenderLeft,
    SentAll,
)
from coordinator.spark.mirrored_files import MirroredFiles

_log = logging.getLogger("tflease")

DRAIN_TIMEOUT = 3.0
"""Seconds for the last pieces to come, when the members have ended. Their agents have half."""

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0

_CLOSE_TIMEOUT = 5.0


@dataclass(slots=True)
class _Sender:
    """What is known of one attempt. ``has_left``: its agent was connected and is no more."""

    has_left: bool = False
    has_sent_all: bool = False


class EventFileMirror:
    """Receives one run's files into ``files.directory`` until it is closed. Thread-safe."""

    def __init__(
        self,
        client: FileClient,
        files: MirroredFiles,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._client = client
        self._files = files
        self._say = say or _log.warning
        self._said: set[str] = set()
        self._senders: dict[Origin, _Sender] = {}
        self._condition = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tflease-event-files", daemon=True)

    @property
    def directory(self) -> Path:
        """Where the members' directories are."""
        return self._files.directory

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def drain(self, expected: Collection[Origin], timeout: float = DRAIN_TIMEOUT) -> bool:
        """Waits until all is here that these attempts have sent before their end, and nothing more
        can come. False: that was not known after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._thread.is_alive() or all(map(self._is_over, expected)),
                deadline - time.monotonic(),
            )

    def _is_over(self, origin: Origin) -> bool:
        sender = self._senders.get(origin)
        return sender is not None and (sender.has_left or sender.has_sent_all)

    def close(self) -> None:
        """Receives nothing more. Idempotent."""
        self._closed.set()
        self._client.close()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            self._receive_all()
        except Exception as error:  # a bug of ours must not be the run's
            self._tell_once("bug", f"event files: {type(error).__name__}: {error}")
            _log.debug("event files", exc_info=error)
        with self._condition:
            self._condition.notify_all()

    def _receive_all(self) -> None:
        delay = _FIRST_DELAY
        while not self._closed.is_set():
            began_at = time.monotonic()
            try:
                for news in self._client.receive():
                    self._take(news)
                if not self._closed.is_set():
                    self._tell_once("taken", "event files: another receiver has taken over")
                return
            except (CoordinatorUnavailable, LimitExceeded):
                pass  # the agents keep what we do not have
            except TfleaseError as error:
                if not self._closed.is_set():
                    self._tell_once("refused", f"event files are not received any more: {error}")
                return
            except OSError as error:
                self._tell_once(
                    "disk", f"event files cannot be written below {self.directory}, and are tried "
                    f"again: {error}"
                )  # fmt: skip
            self._lose_sight()
            delay = _FIRST_DELAY if time.monotonic() - began_at > _LONGEST_DELAY else delay
            self._closed.wait(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _lose_sight(self) -> None:
        """Who was connected may be so still: what has left may come again."""
        with self._condition:
            for sender in self._senders.values():
                sender.has_left = False

    def _take(self, news: FileNews) -> None:
        """Raises OSError."""
        match news:
            case PieceCame(origin=origin, piece=piece):
                self._client.held(origin, self._files.take(origin, piece))
                for text in self._files.complaints:
                    self._tell_once(text.split(" is not kept: ")[-1], text)
                self._files.complaints.clear()
            case SentAll(origin=origin):
                self._client.held_all(origin)
                self._know(origin, sent_all=True)
            case SenderCame(origin=origin):
                self._know(origin)
            case SenderLeft(origin=origin):
                self._know(origin, left=True)

    def _know(self, origin: Origin, *, left: bool = False, sent_all: bool = False) -> None:
        with self._condition:
            sender = self._senders.setdefault(origin, _Sender())
            sender.has_left = left
            sender.has_sent_all = sender.has_sent_all or sent_all
            self._condition.notify_all()

    def _tell_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._say(text)


def whose_end_is_known(run: RunView) -> list[Origin]:
    """The attempts that have sent their last piece, or will have within moments."""
    if run.generation == 0:
        return []  # nobody was started
    return [
        Origin(member.id, member.incarnation)
        for member in run.members
        if member.incarnation is not None and member.phase.has_ended
    ]
