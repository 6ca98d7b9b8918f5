"""What a member's stream has to write: decided in the engine, written in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.core import effects
from coordinator.core.log_values import ReadLog
from coordinator.core.model import IncarnationId, MemberId, RunId

Command = effects.Command | ReadLog


def _nothing() -> None:
    pass


class MemberSession:
    """What is to be written to one member: commands in order, at most so many (``room``), and
    acknowledgements, of which the latest wins.

    ``on_news`` is called when there is something new to write, ``on_end`` when the session is to
    end although its member goes on: another one took over, or the member does not read
    (``is_overfull``). Ten thousand of these are kept: they are small.
    """

    __slots__ = (
        "__weakref__",
        "_commands",
        "_room",
        "_sequence",
        "beat_at",
        "incarnation",
        "is_overfull",
        "is_writing",
        "member",
        "on_end",
        "on_news",
        "rests_on",
        "run_id",
        "writer",
    )

    def __init__(self, run_id: RunId, member: MemberId, incarnation: str, room: int) -> None:
        self.run_id = run_id
        self.member = member
        self.incarnation = IncarnationId(incarnation)
        self._commands: list[tuple[Command, int | None]] = []  # and the mark that each rests on
        self._sequence: int | None = None
        self._room = room
        self.on_news: Callable[[], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self.is_overfull = False
        self.is_writing = False
        self.writer: asyncio.Task[None] | None = None  # beside the one that reads
        self.rests_on = 0  # what must be on disk before the member is told that it was heard
        self.beat_at = 0.0  # when a beat came that is not answered yet

    @property
    def is_idle(self) -> bool:
        """Nobody would take along what is new. A writer that has ended is forgotten a turn of the
        event loop later."""
        return not self.is_writing and (self.writer is None or self.writer.done())

    def forget_writer(self, writer: asyncio.Task[None]) -> None:
        if self.writer is writer:
            self.writer = None
        if not writer.cancelled() and writer.exception() is not None:
            self._end()  # what it had taken is lost: the member is told again when it attends

    def send(self, command: Command) -> None:
        if len(self._commands) >= self._room:
            self.is_overfull = True  # what it was not told it is told when it attends again
            self._end()
            return
        # What it rests on is counted when the event that it comes from is over (``take_commands``).
        self._commands.append((command, 0 if isinstance(command, ReadLog) else None))
        self.on_news()

    def acknowledge(self, sequence: int, mark: int | None) -> None:
        """``mark``: what its report has changed; None: nothing, it was a beat. To be written by
        the caller."""
        self._sequence = sequence
        if mark is not None:
            self.rests_on = mark

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        """Once: a timeout that runs cannot be set again."""
        on_end, self.on_end = self.on_end, _nothing
        on_end()

    @property
    def has_something(self) -> bool:
        """To be written."""
        return self._sequence is not None or bool(self._commands)

    def waits_for(self, mark: int) -> int:
        """The mark that must be on disk before anything more can be written. ``mark``: of now."""
        self._count(mark)
        marks = [self.rests_on] if self._sequence is not None else []
        marks += [self._commands[0][1] or 0] if self._commands else []
        return min(marks, default=0)

    def _count(self, mark: int) -> None:
        if any(rests_on is None for _, rests_on in self._commands):
            self._commands = [
                (command, mark if rests_on is None else rests_on)
                for command, rests_on in self._commands
            ]

    def take_commands(self, mark: int, is_durable: Callable[[int], bool]) -> list[Command]:
        """Those that may be said, in their order. ``mark``: of now."""
        if not self._commands:
            return []
        self._count(mark)
        ready = 0
        while ready < len(self._commands) and is_durable(self._commands[ready][1] or 0):
            ready += 1
        taken, self._commands = self._commands[:ready], self._commands[ready:]
        return [command for command, _ in taken]

    def take_acknowledgement(self, is_durable: Callable[[int], bool]) -> tuple[int | None, float]:
        """If it may be said; with the instant at which the oldest beat in it came; 0: there is
        none."""
        if self._sequence is None or not is_durable(self.rests_on):
            return None, 0.0
        taken = self._sequence, self.beat_at
        self._sequence, self.beat_at = None, 0.0
        return taken
