"""How the rows of an epoch become the same number of steps for all workers. PURE arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """Rows that one worker gives to another."""

    giver: str
    taker: str
    rows: int


def common_steps(rows: Mapping[str, int], batch_sizes: Mapping[str, int]) -> int:
    """Steps that every worker can take with the rows that it has."""
    return min(rows[worker] // batch_size for worker, batch_size in batch_sizes.items())


def most_steps(rows: Mapping[str, int], batch_sizes: Mapping[str, int]) -> int:
    """Steps that all workers can take when rows may move; what is left is less than one more."""
    return sum(rows.values()) // sum(batch_sizes.values())


def plan_moves(rows: Mapping[str, int], shares: Mapping[str, int]) -> tuple[Move, ...]:
    """The fewest rows moved so that everybody has its share, in fewer moves than there are workers.

    Nobody gives of its own share. Raises ValueError when there are too few rows for all shares.
    """
    if sum(rows[worker] for worker in shares) < sum(shares.values()):
        raise ValueError(f"too few rows for the shares {dict(shares)}: {dict(rows)}")
    # The largest first, on both sides: a large gap then takes few givers.
    spare = sorted(((rows[worker] - share, worker) for worker, share in shares.items()))
    givers = [(more, worker) for more, worker in spare if more > 0]
    moves: list[Move] = []
    for short, taker in ((-less, worker) for less, worker in spare if less < 0):
        missing = short
        while missing:
            more, giver = givers.pop()
            given = min(more, missing)
            moves.append(Move(giver, taker, given))
            missing -= given
            if more > given:
                givers.append((more - given, giver))
    return tuple(moves)
