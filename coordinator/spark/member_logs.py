"""What members have printed, for the driver that asks (E3)."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.core.errors import InvalidRun, LogUnavailable
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberId, MemberView, RunView

Read = Callable[[MemberId], LogChunk]
"""Asks the member's agent. Raises LogUnavailable."""


def end_of(run: RunView, member: str, read: Read) -> str:
    """The end of one member's log. Raises InvalidRun, LogUnavailable."""
    by_name = {str(each.id): each for each in run.members}
    if member not in by_name:
        raise InvalidRun(f"run {run.spec.name!r} has no member {member!r}: {', '.join(by_name)}")
    return _text(by_name[member], read)


def end_of_all(run: RunView, read: Read) -> str:
    """Of every member, with its name in front of every line, or of why there is none."""
    lines: list[str] = []
    for member in run.members:
        try:
            text = _text(member, read)
        except LogUnavailable as error:
            text = f"({error})"
        lines += [f"[{member.id}] {line}" for line in text.splitlines()]
    return "\n".join(lines)


def _text(member: MemberView, read: Read) -> str:
    """Of one that has ended what came with its report: also when nobody is left to ask."""
    if member.phase.has_ended and member.exit is not None and member.exit.log_tail:
        return member.exit.log_tail
    return read(member.id).data.decode(errors="replace").rstrip()
