"""Pieces of members' logs, and the question for one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a member's log. ``offset``: where it begins, in bytes; None where that is not
    known, because only the tail of an ended member's log is left. ``size``: of the whole log now.
    ``incarnation``: whose log it is, where the coordinator has told.
    """

    offset: int | None
    data: bytes = field(repr=False)
    size: int
    incarnation: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Asks an agent for a piece of its member's log. ``offset`` None: its end."""

    request_id: str
    offset: int | None
    max_bytes: int
