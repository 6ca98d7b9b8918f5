"""What the members count of a feed, as it travels with their progress. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.core.model import MemberId, MemberView, RunView

_WAITED = "waited"
"""Seconds of waiting for rows: to the coordinator a sign of life, here it is no movement."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one train of a feed in all of its members, as last heard of. ``steps``: what they told of
    their own training, which moves as well while they work on what they have."""

    train: int
    members: tuple[tuple[MemberId, Mapping[str, float]], ...]
    steps: tuple[int, ...] = ()

    @classmethod
    def of(cls, run: RunView, feed: str, train: int, members: Iterable[MemberId]) -> Counters:
        wanted = set(members)
        found = [each for each in run.members if each.id in wanted]
        return cls(
            train,
            tuple((each.id, _of_feed(each, feed)) for each in found),
            tuple(each.step for each in found),
        )

    def total(self, name: str) -> int:
        """The sum over all members that have this train."""
        found = (counts for _, counts in self.members if counts.get("train") == self.train)
        return int(sum(counts.get(name, 0.0) for counts in found))

    def stopped(self) -> tuple[MemberId, ...]:
        """The members that want no more rows of this train."""
        return tuple(who for who, counts in self.members if counts.get("stopped") == self.train)


def _of_feed(member: MemberView, feed: str) -> Mapping[str, float]:
    prefix = f"feed/{feed}/"
    return {
        name.removeprefix(prefix): value
        for name, value in member.metrics.items()
        if name.startswith(prefix) and name != f"{prefix}{_WAITED}"
    }
