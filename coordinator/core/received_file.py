"""What the receiver of a file does with a piece of it. PURE.

Pieces of one version come again after every interruption, and never in another order than they
were sent. What fits is appended, what is there already is passed over, what begins beyond the end
is missed, and its sender told so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Take:
    """What to do: first empty the file if ``restarts``; then write the piece from its byte ``skip``
    on at byte ``at``. None of it is done before ``ReceivedFile.took``."""

    version: int
    at: int
    skip: int
    length: int
    restarts: bool = False

    @property
    def changes_nothing(self) -> bool:
        return not self.restarts and self.length <= 0


class ReceivedFile:
    """How much there is of one file."""

    __slots__ = ("size", "version")

    def __init__(self) -> None:
        self.version = 0
        self.size = 0

    def take(self, version: int, offset: int, length: int) -> Take | None:
        """None: it begins beyond what is there, and is missed."""
        if version < self.version:  # it was on its way when the file became shorter
            return Take(self.version, self.size, 0, 0)
        restarts = version > self.version
        size = 0 if restarts else self.size
        if offset > size:
            return None
        skip = min(size - offset, length)
        return Take(version, size, skip, length - skip, restarts)

    def took(self, take: Take) -> None:
        """It is written."""
        self.version = take.version
        self.size = take.at + take.length
