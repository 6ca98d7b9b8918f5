"""The books of one epoch: what feeders say they delivered, against what the members have. PURE."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.core.errors import FeedMiscounted
from coordinator.spark.feed.report import EpochReport
from executor_agent.feed.sending import EPOCH_CLOSED


@dataclass(frozen=True, slots=True)
class FeederRow:
    """What a feeder returned for its partition. ``rows``: sent by it and acknowledged; ``skipped``:
    those that an earlier attempt had delivered; ``again``: those of an earlier attempt that it
    could not leave out; ``stopped``: why the members wanted no more, or ""; ``marks``: by member,
    how many rows of the epoch it had when it had all of these."""

    partition: int
    rows: int
    skipped: int = 0
    again: int = 0
    bytes: int = 0
    stopped: str = ""
    workers: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Any) -> FeederRow:
        """``row``: Spark's, of a DataFrame, or a dict."""
        plain: Mapping[str, Any] = row if isinstance(row, Mapping) else row.asDict()
        return cls(
            partition=int(plain["partition"]),
            rows=int(plain["rows"]),
            skipped=int(plain["skipped"] or 0),
            again=int(plain["again"] or 0),
            bytes=int(plain["bytes"] or 0),
            stopped=str(plain["stopped"] or ""),
            workers=dict(json.loads(plain["workers"] or "{}")),
            marks=dict(json.loads(plain.get("marks") or "{}")),
        )


@dataclass(frozen=True, slots=True)
class Closed:
    """The keeper's answer to `close`. ``rows``: by member, in the end."""

    steps: int | None
    rows: Mapping[str, int]
    left_out: int
    stopped: str = ""

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Closed:
        steps = reply.get("steps")
        return cls(
            steps=None if steps is None else int(steps),
            rows={str(name): int(rows) for name, rows in (reply.get("rows") or {}).items()},
            left_out=int(reply.get("left_out") or 0),
            stopped=str(reply.get("stopped") or ""),
        )

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def stopped(rows: Iterable[FeederRow]) -> str:
    """Why the members wanted no more, as their feeders heard it; "" when they took all."""
    return next((row.stopped for row in rows if row.stopped not in ("", EPOCH_CLOSED)), "")


def settle(
    epoch: int,
    rows: Iterable[FeederRow],
    closed: Closed,
    seconds: float,
    *,
    deterministic: bool,
    has_leavers: Callable[[], bool] = lambda: False,
    before: Iterable[FeederRow] = (),
    is_restarted: bool = False,
) -> EpochReport:
    """The epoch's report. Raises FeedMiscounted when the two sides do not agree.

    Where a partition's order is known, members must have each row of every partition once. Else
    they may have more, of attempts that failed; and so they may where some have stopped
    (``has_leavers``), because what they took and had not acknowledged went to others, too.

    ``is_restarted``: an earlier generation of the gang had a part in the epoch, and read ``before``
    to the end, which was not sent again. Of the rest nobody knows what it had read: any row may
    have been taken twice.
    """
    found = list(rows)
    twice = sorted(_twice(found))
    if twice:
        raise FeedMiscounted(f"epoch {epoch}: partitions {twice} were delivered by two tasks")
    delivered = sum(row.rows + row.skipped for row in found)
    extra = closed.total - delivered
    if any(row.stopped == EPOCH_CLOSED for row in found):  # it was counted when it was closed
        extra = 0
    if extra < 0 or (extra > 0 and deterministic and not has_leavers()):
        raise FeedMiscounted(
            f"epoch {epoch}: Spark delivered {delivered:,} rows of {len(found)} partitions, and "
            f"the members have {closed.total:,} ({_by_member(closed.rows)})",
            {"delivered": str(delivered), "taken": str(closed.total)},
        )
    kept = list(before)
    members = Counter(closed.rows)
    for row in kept:
        members.update(row.workers)
    sent_again = delivered if is_restarted else 0
    return EpochReport(
        number=epoch,
        rows=closed.total + sum(row.rows + row.skipped for row in kept),
        seconds=seconds,
        steps=closed.steps,
        left_out=closed.left_out,
        members=dict(members),
        bytes=sum(row.bytes for row in [*found, *kept]),
        again=max(extra, sum(row.again for row in found)) + sent_again,
        partitions=len(found),
    )


def _twice(rows: Iterable[FeederRow]) -> set[int]:
    counts = Counter(row.partition for row in rows)
    return {partition for partition, count in counts.items() if count > 1}


def _by_member(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rows.items()))
