"""What `cluster.train` returns: what was fed, to whom, and how sure it is that it was fed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.spark import views

EXACTLY_ONCE = "exactly once"
AT_LEAST_ONCE = "at least once"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch. ``rows``: that the members have taken; ``members``: how many each of them has, in
    the end. ``steps``: of each member, where all take the same number; ``left_out``: rows that
    were left over by that, and nobody trains on. ``again``: rows that may have been taken twice,
    because a task of Spark's was tried again and its rows may have come in another order."""

    number: int
    rows: int
    seconds: float
    steps: int | None = None
    left_out: int = 0
    members: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    again: int = 0
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class FeedReport:
    """One `cluster.train` call.

    ``rows``: that the members have taken; ``bytes``: as sent, of whole epochs; ``seconds``: the
    whole call. ``epochs``: those that were fed to their end. ``stopped``: why the members wanted
    no more, "" when they were fed to the end. ``unfinished``: rows of the epoch in which they were
    stopped, as last heard of.
    """

    feed: str
    epochs: tuple[EpochReport, ...]
    seconds: float
    stopped: str = ""
    unfinished: int = 0

    @property
    def rows(self) -> int:
        return sum(epoch.rows for epoch in self.epochs) + self.unfinished

    @property
    def bytes(self) -> int:
        return sum(epoch.bytes for epoch in self.epochs)

    @property
    def left_out(self) -> int:
        """Rows that were fed and not trained on, so that all members take the same steps."""
        return sum(epoch.left_out for epoch in self.epochs)

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def delivery(self) -> str:
        """ "exactly once" in every epoch, or "at least once" and how many rows it is about."""
        again = sum(epoch.again for epoch in self.epochs)
        if not again:
            return EXACTLY_ONCE
        return f"{AT_LEAST_ONCE}: {again:,} rows may have been taken twice"

    @property
    def summary(self) -> str:
        """One line."""
        text = (
            f"feed {self.feed!r}: {self.rows:,} rows ({_size(self.bytes)}) in {self.seconds:.1f} s,"
            f" {self.rows_per_second:,.0f} rows/s, {self.delivery}"
        )
        return f"{text}; stopped: {self.stopped}" if self.stopped else text

    def __str__(self) -> str:
        table = [_HEADER, *map(_cells, self.epochs)]
        widths = [max(len(row[column]) for row in table) for column in range(len(_HEADER))]
        lines = (
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        )
        return "\n".join([self.summary, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return views.feed(self.summary, _HEADER, map(_cells, self.epochs))


_HEADER = ("epoch", "rows", "steps", "left out", "seconds", "rows by member")
_MAX_MEMBERS = 8  # in a table


def _cells(epoch: EpochReport) -> tuple[str, ...]:
    return (
        str(epoch.number),
        f"{epoch.rows:,}",
        "-" if epoch.steps is None else f"{epoch.steps:,}",
        f"{epoch.left_out:,}",
        f"{epoch.seconds:.1f}",
        _by_member(epoch.members),
    )


def _by_member(members: Mapping[str, int]) -> str:
    shown = [f"{name} {rows:,}" for name, rows in sorted(members.items())[:_MAX_MEMBERS]]
    more = len(members) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
