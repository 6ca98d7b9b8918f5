"""The lines that members print, as they print them (E3): their logs are read on, again and again.

It only asks, as any reader does: no member and no run waits for it (E4). What the coordinator's
or an agent's trouble keeps back is read later; what cannot be had any more is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from coordinator.core.errors import (
    CoordinatorUnavailable,
    InvalidRun,
    LimitExceeded,
    LogUnavailable,
    TfleaseError,
)
from coordinator.core.log_lines import LogLines, Notice
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberId, MemberPhase, MemberView, RunView

PIECE_BYTES = 256 * 1024
"""Of one answer: what is held in memory of a member's log."""

_SHORTEST_DELAY = 0.25
_LONGEST_DELAY = 0.5
"""Seconds between two questions to a member that prints nothing; of large runs more."""

_QUESTIONS_PER_SECOND = 200.0

_TROUBLE_DELAY = 10.0
"""Seconds between two questions to an agent that does not answer; others wait meanwhile."""

_TOLD_AFTER = 5.0
"""Seconds out of reach before that is said: a restart of the coordinator takes less."""

_UNSEEN = "{} more of its attempts had ended before anybody looked at them"


class LogSource(Protocol):
    """A run, and the logs of its members."""

    def view(self) -> RunView:
        """As it is now, as far as is known."""

    def read(self, member: MemberId, offset: int | None, max_bytes: int) -> LogChunk:
        """Raises LogUnavailable, LimitExceeded, CoordinatorUnavailable."""

    def lost(self) -> str:
        """Why nothing more can be learned of the run; "" while it is followed."""

    def wait(self, seconds: float) -> object:
        """Or until the run has ended."""


def follow(
    source: LogSource,
    member: str | None = None,
    *,
    last_bytes: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Lines without their ends, of one member or, with "[worker:1] " in front, of all; ends when
    the run has ended and all was read. Sentences about the logs themselves begin with "[tflease] ".

    ``last_bytes``: begins with the last lines of what is there, so much at most; None: with the
    first line. Raises InvalidRun when there is no such member.
    """
    run = source.view()
    names = [str(each.id) for each in run.members]
    if member is not None and member not in names:
        raise InvalidRun(f"the run has no member {member!r}: {', '.join(names)}")
    return _Follower(source, run, member, last_bytes, clock).lines()


class _Follower:
    def __init__(
        self,
        source: LogSource,
        run: RunView,
        member: str | None,
        last_bytes: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._first: RunView | None = run
        self._prefix = member is None
        self._clock = clock
        self._logs = {
            each.id: _MemberLog(each.id, source, last_bytes, clock, len(run.members))
            for each in run.members
            if member in (None, str(each.id))
        }
        self._away_since: float | None = None
        self._said_away = False

    def lines(self) -> Iterator[str]:
        while True:
            lost = self._source.lost()  # before the view, which is then the last one
            run, self._first = self._first or self._source.view(), None
            came = False
            for member in run.members:
                if (log := self._logs.get(member.id)) is not None:
                    for line in self._step(
                        log, member, run, is_over=run.phase.is_terminal or bool(lost)
                    ):
                        came = True
                        yield line
            if run.phase.is_terminal or lost:
                if lost and not run.phase.is_terminal:
                    yield _said(f"the run is not followed any more: {lost}")
                return
            if not came:  # a restart in place leaves little time to see how the last attempt ended
                self._source.wait(_SHORTEST_DELAY)

    def _step(
        self, log: _MemberLog, member: MemberView, run: RunView, *, is_over: bool
    ) -> Iterator[str]:
        try:
            news = log.news(member, run, is_over=is_over)
        except (CoordinatorUnavailable, LimitExceeded) as error:
            if line := self._out_of_reach(error):
                yield line
            return
        if self._away_since is not None and log.has_answered:
            self._away_since = None
            if self._said_away:
                self._said_away = False
                yield _said("the coordinator answers again")
        for each in news:
            if isinstance(each, Notice):
                yield _said(f"{member.id}: {each.text}")
            else:
                yield f"[{member.id}] {each}" if self._prefix else each

    def _out_of_reach(self, error: Exception) -> str:
        """Said once: what is printed meanwhile is read later."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        if self._said_away or now - self._away_since < _TOLD_AFTER:
            return ""
        self._said_away = True
        return _said(f"logs cannot be read now, and are read on later: {error}")


class _MemberLog:
    """One member's log, through all of its attempts."""

    def __init__(
        self,
        member: MemberId,
        source: LogSource,
        last_bytes: int | None,
        clock: Callable[[], float],
        members: int,
    ) -> None:
        self._member = member
        self._last_bytes = last_bytes
        self._longest = max(_LONGEST_DELAY, members / _QUESTIONS_PER_SECOND)
        self._source = source
        self._clock = clock
        self._lines = LogLines(0 if last_bytes is None else None)
        self._incarnation = ""
        self._restarts = 0
        self._where = ""
        self._has_ended = False
        self._delay = _SHORTEST_DELAY
        self._said_trouble = False
        self.due_at = 0.0
        self.has_answered = False

    def news(self, member: MemberView, run: RunView, *, is_over: bool) -> list[str | Notice]:
        """``is_over``: this is the last look. Raises CoordinatorUnavailable, LimitExceeded."""
        self.has_answered = False
        found: list[str | Notice] = []
        if member.incarnation is not None:
            found += self._attempt(member, run)
        if member.executor is not None:
            self._where = f"{member.executor.directory}/member.log on {member.executor}"
        if self._has_ended or not self._incarnation:
            self.due_at = self._clock() + _SHORTEST_DELAY
            return found
        if member.phase.has_ended or is_over:
            return found + self._end(member)
        if self._clock() < self.due_at:
            return found
        return found + self._read(member)

    def _attempt(self, member: MemberView, run: RunView) -> list[str | Notice]:
        """Which of its attempts it is now."""
        incarnation, host = str(member.incarnation), str(member.executor or "")
        if incarnation == self._incarnation:
            return []
        # Of those that are still told; there may have been others.
        restarts = sum(not each.alone or each.member == member.id for each in run.restarts)
        unseen, self._restarts = restarts - self._restarts - 1, restarts
        is_first, was_open = not self._incarnation, not self._has_ended
        self._incarnation, self._has_ended, self._delay = incarnation, False, _SHORTEST_DELAY
        self._said_trouble = False
        self.due_at = 0.0
        if is_first:
            return []
        found: list[str | Notice] = []
        if was_open and self._where:
            found += [
                *self._lines.flush(),
                Notice(f"lines may be missing here: the last attempt's log is {self._where}"),
            ]
        if unseen > 0:
            found.append(Notice(f"lines are missing here: {_UNSEEN.format(unseen)}"))
        self._lines = LogLines()
        return [*found, Notice(f"started again{f', on {host}' if host else ''}")]

    def _end(self, member: MemberView) -> list[str | Notice]:
        self._has_ended = True
        tail = member.exit.log_tail if member.exit is not None else ""
        tail = tail or self._tail_left()
        if tail:
            return self._lines.end(tail)
        is_silent = self._lines.position == 0 and member.exit is not None
        if is_silent and member.phase is not MemberPhase.FENCED:
            return []
        where = Notice(f"the end of its log is not known here: {self._where}")
        return [*self._lines.flush(), where]

    def _tail_left(self) -> str:
        """What the coordinator has: pictures of large runs leave it out."""
        with suppress(TfleaseError):
            chunk = self._source.read(self._member, self._lines.position, PIECE_BYTES)
            if chunk.offset is None and chunk.incarnation in ("", self._incarnation):
                return chunk.data.decode(errors="replace")
        return ""

    def _read(self, member: MemberView) -> list[str | Notice]:
        offset = self._lines.position
        size = PIECE_BYTES if offset is not None else self._last_bytes or PIECE_BYTES
        try:
            chunk = self._source.read(self._member, offset, size)
        except LogUnavailable as error:
            return self._nobody_answers(member, error)
        except (CoordinatorUnavailable, LimitExceeded):
            self.due_at = self._clock() + _LONGEST_DELAY
            raise
        self.has_answered, self._said_trouble = True, False
        if chunk.incarnation and chunk.incarnation != self._incarnation:
            self.due_at = self._clock() + _SHORTEST_DELAY
            return []  # of another attempt, which the next picture of the run tells of
        if chunk.offset is None:  # it has ended in between, and its report is what is left
            self._has_ended = True
            return self._lines.end(chunk.data.decode(errors="replace"))
        self._delay = _SHORTEST_DELAY if chunk.data else min(2 * self._delay, self._longest)
        is_behind = chunk.offset + len(chunk.data) < chunk.size
        self.due_at = 0.0 if is_behind else self._clock() + self._delay
        return self._lines.take(chunk)

    def _nobody_answers(self, member: MemberView, error: LogUnavailable) -> list[str | Notice]:
        """Said once of each time: what is printed meanwhile is read later."""
        is_lost = member.phase is MemberPhase.LOST or "did not answer" in error.message
        self.due_at = self._clock() + (_TROUBLE_DELAY if is_lost else _SHORTEST_DELAY)
        if self._said_trouble or not is_lost:
            return []
        self._said_trouble = True
        return [Notice(f"its log cannot be read now: {error.message}")]


def _said(text: str) -> str:
    return f"[tflease] {' '.join(text.split())}"
