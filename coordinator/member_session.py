"""What a member's stream has to write: decided in the engine, written in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.core import effects
from coordinator.core.model import IncarnationId, MemberId, ReadLog, RunId

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
        self._commands: list[Command] = []
        self._sequence: int | None = None
        self._room = room
        self.on_news: Callable[[], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self.is_overfull = False
        self.is_writing = False
        self.writer: asyncio.Task[None] | None = None  # beside the one that reads
        self.rests_on = 0  # what must be on disk before the member is told that it was heard
        self.beat_at = 0.0  # when a beat came that is not answered yet

    def forget_writer(self, _: object) -> None:
        self.writer = None

    def send(self, command: Command) -> None:
        if len(self._commands) >= self._room:
            self.is_overfull = True  # what it was not told it is told when it attends again
            self.on_end()
            return
        self._commands.append(command)
        self.on_news()

    def acknowledge(self, sequence: int, mark: int | None) -> None:
        """``mark``: what its report has changed; None: nothing, it was a beat. To be written by
        the caller."""
        self._sequence = sequence
        if mark is not None:
            self.rests_on = mark

    def close(self) -> None:
        self.on_end()

    @property
    def has_something(self) -> bool:
        """To be written."""
        return self._sequence is not None or bool(self._commands)

    def take_commands(self) -> list[Command]:
        if not self._commands:
            return self._commands
        taken, self._commands = self._commands, []
        return taken

    def take_acknowledgement(self) -> tuple[int | None, float]:
        """With the instant at which the oldest beat in it came; 0: there is none."""
        taken = self._sequence, self.beat_at
        self._sequence, self.beat_at = None, 0.0
        return taken
