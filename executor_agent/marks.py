"""What an agent leaves in its member's directory for the task: small files, one for each fact.

The task decides by them whether it starts the member once more (``core.succession``). They are
written beside the agent's work: a disk that hangs must hold up neither the beats nor the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from executor_agent.core.succession import LastWords
from executor_agent.linux import write_atomically

_RESERVED = "reserved"  # empty: the slot was granted
_AGAIN = "again"  # empty: stopped, so that another attempt can follow
_TOLD = "told"  # the cause that the coordinator has acknowledged
_PORTS = "ports.json"


class Marks:
    """The writer. Used inside the agent's event loop alone; nothing here blocks or raises."""

    def __init__(self, directory: Path, complain: Callable[[str], None]) -> None:
        self._directory = directory
        self._complain = complain
        self._writing: set[asyncio.Task[None]] = set()

    def reserved(self) -> None:
        """The slot was granted."""
        self._leave(_RESERVED)

    def to_follow(self) -> None:
        """The coordinator stops the member so that another attempt can follow."""
        self._leave(_AGAIN)

    def told(self, cause: str) -> None:
        """The coordinator knows of the end, and of this cause."""
        self._leave(_TOLD, cause)

    def ports(self, ports: Iterable[int]) -> None:
        """Those that the member listens on."""
        self._leave(_PORTS, json.dumps(list(ports)))

    async def written(self, timeout: float) -> None:
        """Returns when all of them are on disk, or the time is over."""
        if self._writing:
            await asyncio.wait(tuple(self._writing), timeout=timeout)

    def _leave(self, name: str, content: str = "") -> None:
        writing = asyncio.create_task(self._write(name, content))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _write(self, name: str, content: str) -> None:
        try:
            await asyncio.to_thread(write_atomically, self._directory / name, content)
        except OSError as error:  # the member is not restarted in place then
            self._complain(f"cannot leave {self._directory / name}: {error}")


def read(directory: Path) -> LastWords:
    """What is there once the agent is gone; a mark that cannot be read was not left."""
    told = _text(directory / _TOLD)
    return LastWords(
        had_slot=bool(told) or (directory / _RESERVED).exists(),  # only its holder is heard
        is_to_follow=(directory / _AGAIN).exists(),
        told=told,
        ports=_numbers(_text(directory / _PORTS)),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(port) for port in json.loads(text))
    except (TypeError, ValueError):
        return ()
