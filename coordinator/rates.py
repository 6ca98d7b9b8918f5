"""Rates, with the time as an argument: how long to wait, or whether it is too much."""

from __future__ import annotations


class Bucket:
    """Holds up to ``burst`` and fills at ``rate`` a second. It is full when it is made."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Takes it in any case, into debt if need be; returns the seconds until that is paid."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def wait_for(self, amount: float, now: float) -> float:
        """The seconds that ``take`` would return; takes nothing."""
        self._fill(now)
        return max(0.0, (amount - self._level) / self._rate)

    def give_back(self, amount: float) -> None:
        """What was taken and not used."""
        self._level = min(self._burst, self._level + amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
