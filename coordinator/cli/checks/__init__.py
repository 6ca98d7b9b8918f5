"""What a first run needs, one function a line of `tflease doctor`.

They look and change nothing, and never import what they look at.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.Enum):
    """FAILED: a run would not work. NOTE: it will, but somebody may want to know."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and what to do about it (never empty when it
    has failed)."""

    name: str
    status: Status
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, found)


def note(name: str, found: str, advice: str = "") -> Check:
    """Works, with something to know."""
    return Check(name, Status.NOTE, found, advice)


def failed(name: str, found: str, advice: str) -> Check:
    """Would not work."""
    return Check(name, Status.FAILED, found, advice)
