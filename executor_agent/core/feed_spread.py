"""Which worker gets the next record batch of a partition, and whom to connect to. PURE.

Owns: the choice of one feeder. Must not know sockets or the clock.

Every feeder sees only what workers have told it, and decides alone. Workers count the rows of all
feeders, so a choice made on an old number is put right by the next acknowledgement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

CREDIT: Final = 2
"""Batches without acknowledgement that one connection may have."""

BATCHES_AHEAD: Final = 4
"""How far a local worker may be ahead before rows travel to another host."""

CONNECTIONS_AT_ONCE: Final = 8
"""As many are opened first, and as many again whenever they do not suffice."""

PATIENCE: Final = 0.2
"""Seconds without any credit, after which more connections are opened."""


@dataclass(frozen=True, slots=True)
class Target:
    """An open connection. ``rows``: what the worker last said it has of the epoch, and what this
    feeder has sent it since. ``credit``: batches it may be sent without an acknowledgement."""

    member: str
    rows: int
    credit: int
    is_local: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that takes rows of the feed. ``rows``: what it said it has of the epoch, or 0."""

    member: str
    is_local: bool
    rows: int = 0


def choose(targets: Sequence[Target], batch_rows: int) -> str | None:
    """Who gets a batch of so many rows; None when nobody has credit.

    A local one, while it is not more than four such batches ahead of the one with the fewest rows;
    else that one. Those without credit are no measure: one that reads slowly shall not hold up the
    others. Among equals the first.
    """
    able = [target for target in targets if target.credit > 0]
    if not able:
        return None
    fewest = min(able, key=_rows)
    nearest = min((target for target in able if target.is_local), key=_rows, default=None)
    if nearest is not None and nearest.rows - fewest.rows <= BATCHES_AHEAD * batch_rows:
        return nearest.member
    return fewest.member


def first_to_open(candidates: Sequence[Candidate], partition: int) -> tuple[str, ...]:
    """Whom to connect to at the start: local ones, then others, at most eight. One of them is the
    same for every attempt at this partition, on whatever host: it knows of those before."""
    first = _in_turn(candidates, partition)[:CONNECTIONS_AT_ONCE]
    home = candidates[partition % len(candidates)] if candidates else None
    if home is not None and home not in first:
        first[-1] = home
    return tuple(member.member for member in first)


def next_to_open(
    candidates: Sequence[Candidate],
    known: Collection[str],
    partition: int,
    seconds_without_credit: float,
) -> tuple[str, ...]:
    """Whom to connect to as well: those with the fewest rows, at most eight; often nobody.

    ``known``: members that are connected, or that have stopped. Without this a feed with more
    workers than connections could stand still, because those that a feeder knows wait for the step
    of one that it does not know.
    """
    if seconds_without_credit < PATIENCE:
        return ()
    others = [one for one in _in_turn(candidates, partition) if one.member not in known]
    others.sort(key=lambda one: (one.rows, not one.is_local))
    return tuple(one.member for one in others[:CONNECTIONS_AT_ONCE])


def _in_turn(candidates: Sequence[Candidate], partition: int) -> list[Candidate]:
    """Local ones first. Every partition begins at another one: feeders that start together would
    all send their first batch to the same worker otherwise."""
    turn = partition % len(candidates) if candidates else 0
    rotated = [*candidates[turn:], *candidates[:turn]]
    return sorted(rotated, key=lambda one: not one.is_local)


def _rows(target: Target) -> int:
    return target.rows
