"""The words in which supervision tells what it did: who died, who noticed, what was signalled.

Owns: the wording of every line of the sentinel and the form that all lines share. Must not know
where lines go or what time it is: moments come in, text goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from executor_agent.core.record import Record
from executor_agent.core.stop_events import (
    AgentExited,
    AnchorDied,
    AnnounceStop,
    Effect,
    Event,
    LifelineClosed,
    MemberExited,
    StartFailed,
    StopAsked,
    TakeOver,
    TerminateAsked,
    TerminateMember,
)
from executor_agent.core.supervision import ExitFacts

LONGEST_LINE: Final = 4000
"""Bytes. Below PIPE_BUF (4096), so that a pipe takes a line as a whole or not at all."""

SUPERVISION_LOG: Final = "supervision.log"
"""In a member's directory; sentinel, agent and task append to it."""

MOST_NAMED: Final = 8
_IN_ORDER = "exited with code 0"


class Line(Record):
    """``routine``: part of a healthy life, so that the executor's stderr does without it."""

    text: str
    routine: bool = False


def formatted(stamp: str, marker: str, who: str, text: str) -> bytes:
    """One line for a log. Text from elsewhere cannot make it two, nor look like another's."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    line = f"{stamp} [{marker}] {who}: {printable}".encode(errors="backslashreplace")
    if len(line) >= LONGEST_LINE:  # cut between two characters
        line = line[: LONGEST_LINE - 4].decode(errors="ignore").encode() + b"..."
    return line + b"\n"


class Story:
    """What one sentinel has to tell of its member, in the order in which it decides."""

    def __init__(self, watch: Mapping[str, tuple[int, float]]) -> None:
        self._watch = watch
        self._member = "member"
        self._group: int | None = None
        self._stopping_since: float | None = None
        self._told: set[str] = set()  # several things see one end; an agent may ask twice

    def started(self, sentinel: int, agent: int, member: int, host: str) -> Line:
        """Both are started."""
        self._member, self._group = f"member (pid {member})", member
        anchors = ", ".join(f"{name} (pid {pid})" for name, (pid, _) in self._watch.items())
        return Line(
            f"pid {sentinel} on {host} started agent (pid {agent}) and {self._member}, "
            f"watching {anchors or 'nobody'}"
        )

    def decided(self, event: Event, effects: Sequence[Effect], now: float) -> list[Line]:
        """What followed from an event; what a kill round met is told by `killed`."""
        lines = []
        cause = self._cause(event)
        was_stopping = self._stopping_since is not None
        for effect in effects:
            match effect:
                case AnnounceStop(reason, grace):
                    self._stopping_since = now
                    lines.append(self._stopping(event, cause or reason, grace))
                case TerminateMember():
                    since = now if self._stopping_since is None else self._stopping_since
                    waited = f"after {now - since:.1f} s of grace"
                    lines.append(Line(f"SIGTERM to the member's group {self._group} {waited}"))
                case TakeOver():
                    lines.append(Line("task hands over; now tied to the executor alone", True))
                case _:
                    pass  # a kill round and an end have a story of their own
        if cause and was_stopping and cause not in self._told:
            lines.append(Line(f"{cause}, in a stop that is under way", routine=True))
        self._told.add(cause)
        return lines

    def _stopping(self, event: Event, cause: str, grace: float) -> Line:
        if isinstance(event, MemberExited) and not event.let_go:
            return Line(f"{cause}; ending what it left", routine=event.how == _IN_ORDER)
        return Line(f"{cause}; stopping, grace {grace:g} s")

    def _cause(self, event: Event) -> str:
        match event:
            case AnchorDied(name, seen_by):
                return f"{self._anchor(name)} died, seen by {seen_by}"
            case LifelineClosed(seen_by):
                return f"{self._anchor('task')} died or let go, seen by {seen_by}"
            case MemberExited(let_go, how):
                first = f"{self._anchor('task')} let go, and " if let_go else ""
                return f"{first}{self._member} {how}"
            case AgentExited(how):
                in_order = self._stopping_since is not None and how == _IN_ORDER
                return "" if in_order else f"agent {how}"
            case StopAsked(grace, reason):
                return f"agent asks for a stop{_with_grace(grace)}: {reason}"
            case TerminateAsked():
                return "SIGTERM came in"
            case StartFailed(why):
                return f"cannot start: {why}"
            case _:
                return ""

    def _anchor(self, name: str) -> str:
        return f"{name} (pid {self._watch[name][0]})" if name in self._watch else name


def killed(labels: Sequence[str], count: int) -> Line:
    """``labels``: the first of ``count`` processes that were sent SIGKILL just now."""
    return Line(f"SIGKILL to {_counted(count)}: {_listed(labels, count)}")


def ended(facts: ExitFacts, labels: Sequence[str]) -> Line:
    """How the stop ended. ``labels``: the first of the survivors, as they are now."""
    after = f"after {facts.stop_seconds:.3f} s"
    if facts.survivors:
        count = len(facts.survivors)
        verb = "survives" if count == 1 else "survive"
        return Line(f"{_counted(count)} {verb} SIGKILL {after}: {_listed(labels, count)}")
    if facts.proof == "none":
        return Line(f"nobody is seen any more {after}, but nothing is proven")
    return Line(f"all gone {after} (proof: {facts.proof})")


def _with_grace(grace: float | None) -> str:
    return "" if grace is None else f" within {grace:g} s"


def _counted(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _listed(labels: Sequence[str], count: int) -> str:
    more = [f"{count - len(labels)} more"] if count > len(labels) else []
    return ", ".join([*labels, *more])
