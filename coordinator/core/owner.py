"""The owner's clock: how long the process that owns a run may be away before it is cancelled.

An embedded coordinator watches its driver with a pidfd and needs none of this (O13). A daemon knows
its owners by their sessions alone, and a session may end because a network does.
"""

from __future__ import annotations

_NEVER = float("inf")


class OwnerClock:
    """``timeout`` in seconds; None: the owner is watched otherwise, and may be away for ever.

    It starts at the creation of the run: an owner may die before its first session.
    """

    __slots__ = ("_sessions", "_timeout", "deadline")

    def __init__(self, timeout: float | None, now: float) -> None:
        self._timeout = timeout
        self._sessions = 0
        self.deadline = self._from(now)

    def _from(self, now: float) -> float:
        return _NEVER if self._timeout is None else now + self._timeout

    def attach(self) -> None:
        """A session has opened; there may be several while one replaces the other."""
        self._sessions += 1
        self.deadline = _NEVER

    def detach(self, now: float) -> None:
        """A session has closed, by whatever end."""
        self._sessions -= 1
        if self._sessions == 0:
            self.deadline = self._from(now)

    def not_before(self, instant: float) -> None:
        """It has at least that long: it could not reach us before."""
        self.deadline = max(self.deadline, instant)

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away for so long."""
        self.deadline += seconds

    @property
    def reason(self) -> str:
        """Why a run is cancelled whose deadline has come."""
        return f"its owner, the driver, was away for {self._timeout:g} s"
