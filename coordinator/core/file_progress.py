"""Which piece of which file is sent next, and what the receiver has: decisions only. PURE.

Rules:
- Files grow at their end. One that is shorter than what was sent, or is another one under the same
  name, is a new version, and begins anew.
- Each file is sent in order, from what the receiver holds on, and nothing is forgotten before it is
  held: what was on its way when a receiver went is sent to the next.
- A receiver that comes is asked for every file that was begun with an empty piece: it may have less
  than the one before.
- At most a window of bytes is on its way. Files take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.core.file_values import (
    MAX_BYTES,
    MAX_FILES,
    PIECE_BYTES,
    WINDOW_BYTES,
    Held,
    path_problem,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it lies there. ``identity``: another one under the same name has another."""

    size: int
    identity: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The piece to send next. ``length`` 0: the receiver is asked what it has."""

    path: str
    identity: tuple[int, int]
    version: int
    offset: int
    length: int


@dataclass(slots=True)
class _File:
    """``held`` <= ``sent`` <= ``size``, all of this version. ``asks``: an empty piece is due."""

    identity: tuple[int, int]
    version: int = 0
    size: int = 0
    sent: int = 0
    held: int = 0
    asks: bool = True
    waits: bool = True  # for the first word about it from this receiver

    def restart(self, identity: tuple[int, int]) -> None:
        self.identity = identity
        self.version += 1
        self.size = self.sent = self.held = 0
        self.asks = self.waits = True


class FileProgress:
    """All files of one attempt of a member. ``complaints``: what is not sent, once each, to be
    taken by whoever tells people."""

    def __init__(self, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._files: dict[str, _File] = {}
        self._turns: list[str] = []
        self._refused: set[str] = set()
        self._complained: set[str] = set()
        self._window = WINDOW_BYTES
        self._is_full = False
        self.is_received = False
        self.complaints: list[str] = []

    # -- what is there ---------------------------------------------------------------------

    def saw(self, files: Mapping[str, Seen]) -> None:
        """What lies in the directory now. A file that is gone keeps what was sent of it."""
        budget = self._max_bytes - sum(file.size for file in self._files.values())
        for path, seen in files.items():
            file = self._files.get(path) or self._begin(path, seen)
            if file is None:
                continue
            if seen.identity != file.identity or seen.size < file.sent:
                file.restart(seen.identity)
            grown = seen.size - file.size  # below 0: what is gone was not sent yet
            if grown > budget:
                self._complain(
                    "bytes", f"{path}: more than {self._max_bytes:,} bytes of event files are not "
                    "sent"
                )  # fmt: skip
                grown = budget
            budget -= grown
            file.size += grown

    def _begin(self, path: str, seen: Seen) -> _File | None:
        if path in self._refused:
            return None
        problem = path_problem(path)
        if problem:
            self._complain("path", f"{ascii(path)[:200]} {problem}: not sent")
            if len(self._refused) < self._max_files:
                self._refused.add(path)
            return None
        if len(self._files) >= self._max_files:
            self._complain("files", f"{path}: more than {self._max_files:,} files are not sent")
            return None
        self._turns.append(path)
        return self._files.setdefault(path, _File(seen.identity))

    def changed(self, path: str, seen: Seen | None) -> None:
        """It is not what it was when it was to be read; None: it is gone, and what was not sent of
        it is lost."""
        file = self._files[path]
        if seen is None:
            file.size = file.sent
        else:
            self.saw({path: seen})

    def _complain(self, kind: str, text: str) -> None:
        if kind not in self._complained:
            self._complained.add(kind)
            self.complaints.append(text)

    # -- the receiver ----------------------------------------------------------------------

    def receiver_came(self, window: int = WINDOW_BYTES) -> None:
        """It may be another than the one before."""
        self.is_received = True
        self._window = max(1, window)
        for file in self._files.values():
            file.sent = file.held
            file.asks = file.waits = True

    def receiver_left(self) -> None:
        """Or we have lost the way to it."""
        self.is_received = False

    def held(self, held: Held) -> None:
        """It says what it has. Of a version that is over: nothing follows from it."""
        file = self._files.get(held.path)
        if file is None or held.version != file.version or not 0 <= held.size <= file.size:
            return
        file.waits = False
        if held.missed:
            file.sent = file.held = held.size
        else:
            file.held = max(file.held, held.size)
            file.sent = max(file.sent, file.held)

    @property
    def is_complete(self) -> bool:
        """A receiver is there and has all that was seen."""
        return self.is_received and all(
            not (file.asks or file.waits) and file.held == file.size
            for file in self._files.values()
        )

    # -- what to send ----------------------------------------------------------------------

    @property
    def on_the_way(self) -> int:
        """Bytes that were sent and are not held yet."""
        return sum(file.sent - file.held for file in self._files.values())

    def next(self) -> Wanted | None:
        """None: there is nothing to send now. Nothing has been sent before ``sent``."""
        if not self.is_received:
            return None
        room = self._window - self.on_the_way
        for turn, path in enumerate(self._turns):
            file = self._files[path]
            length = 0 if file.asks else min(PIECE_BYTES, file.size - file.sent, room)
            if file.asks or length > 0:
                self._turns.append(self._turns.pop(turn))
                return Wanted(path, file.identity, file.version, file.sent, length)
        return None

    def sent(self, wanted: Wanted, length: int) -> None:
        """So many bytes of it are on their way."""
        file = self._files[wanted.path]
        if file.version == wanted.version and file.sent == wanted.offset:
            file.sent += length
            file.asks = False
