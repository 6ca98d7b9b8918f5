"""Files that grow on executors and are wanted on the driver: the values, and what a path may be.

PURE. Both ends and the coordinator between them use it; nobody trusts the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

PIECE_BYTES = 256 * 1024
"""The most bytes of one piece."""

WINDOW_BYTES = 1024 * 1024
"""At most so many bytes of one agent are sent and not acknowledged."""

MAX_FILES = 1_000
MAX_BYTES = 4 * 1024**3
"""Of one attempt of a member; what is more is not sent, and not taken."""

MAX_PATH_BYTES = 1_024
_MAX_NAME_BYTES = 240  # a file system takes 255; ".2" and the like may follow
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """``data`` of the file at ``path`` from byte ``offset`` on. ``version``: how often the file
    became shorter or was replaced."""

    path: str
    version: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """The receiver has ``size`` bytes of that version of the file. ``missed``: a piece began beyond
    that and was dropped."""

    path: str
    version: int
    size: int
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whether somebody receives, and how many bytes may be on their way. Said anew of each one
    that comes."""

    is_there: bool
    window: int = WINDOW_BYTES


@dataclass(frozen=True, slots=True)
class AllHeld:
    """The receiver has all that was sent before the end."""


def path_problem(path: str) -> str:
    """Why this is no path below a directory; empty: it is one."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    names = path.split("/")
    if len(encoded) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES:,} bytes"
    if len(names) > _MAX_DEPTH:
        return f"is more than {_MAX_DEPTH} directories deep"
    if any(name in ("", ".", "..") for name in names):
        return "must be relative, without empty names, . and .."
    if any(len(name.encode()) > _MAX_NAME_BYTES for name in names):
        return f"has a name of more than {_MAX_NAME_BYTES} bytes"
    if any(ord(character) < ord(" ") for character in path):
        return "has control characters"
    return ""
