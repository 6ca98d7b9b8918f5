"""What a member's stream has to write: decided in the engine, written in the service."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from coordinator.core import effects
from coordinator.core.model import IncarnationId, MemberId, ReadLog, RunId

Command = effects.Command | ReadLog


class MemberSession:
    """What is to be written to one member: commands in order, at most so many (``room``), and
    acknowledgements, of which the latest wins."""

    def __init__(self, run_id: RunId, member: MemberId, incarnation: str, room: int) -> None:
        self.run_id = run_id
        self.member = member
        self.incarnation = IncarnationId(incarnation)
        self._commands: deque[Command] = deque()
        self._sequence: int | None = None
        self._closed = False
        self._something = asyncio.Event()
        self._room = room
        self._give_up: Callable[[], None] = self.close
        self.rests_on = 0  # what must be on disk before the member is told that it was heard

    def when_full(self, give_up: Callable[[], None]) -> None:
        """``give_up`` is called when the member does not read what it is told."""
        self._give_up = give_up

    def send(self, command: Command) -> None:
        if len(self._commands) >= self._room:
            give_up, self._give_up = self._give_up, self.close
            give_up()  # what it was not told it is told when it attends again
            return
        self._commands.append(command)
        self._something.set()

    def acknowledge(self, sequence: int, mark: int | None) -> None:
        """``mark``: what its report has changed; None: nothing, it was a beat."""
        self._sequence = sequence
        if mark is not None:
            self.rests_on = mark
        self._something.set()

    def close(self) -> None:
        self._closed = True
        self._something.set()

    @property
    def is_drained(self) -> bool:
        return self._closed and not self._commands and self._sequence is None

    async def wait(self) -> None:
        await self._something.wait()
        self._something.clear()

    def take_commands(self) -> list[Command]:
        taken = list(self._commands)
        self._commands.clear()
        return taken

    def take_acknowledgement(self) -> int | None:
        taken, self._sequence = self._sequence, None
        return taken
