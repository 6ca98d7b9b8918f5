"""What the keeper of a feed's steps (``feed_steps``) is told, and what it wants done. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker has opened the train: feeders may send to it."""

    worker: str


@dataclass(frozen=True, slots=True)
class Reads:
    """A worker's consumer reads the feed in batches of so many rows (None: as it likes). ``equal``:
    it wants as many steps as all others."""

    worker: str
    batch_size: int | None
    equal: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """So many rows of an epoch have entered a worker's queue, from its beginning on."""

    worker: str
    epoch: int
    rows: int


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The driver has delivered all of an epoch. Asked again, it is answered again (long after, with
    no rows of anybody)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """No feeder brings a worker rows of the epoch any more; it has so many."""

    worker: str
    epoch: int
    rows: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A worker has given another so many rows; fewer than it was last asked to are an error. If it
    could not because it has stopped, it says `Stopped` before."""

    worker: str
    epoch: int
    rows: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """A worker wants no more rows of this train. It says all that has arrived before."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker cannot be reached any more."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndAsked:
    """The driver, a younger train, or the end of rank 0 ends the train."""

    reason: str


Word = Opened | Reads | Arrived | Frozen | Moved | Stopped | Gone
"""What a worker says, or what is learned of it."""

Event = Word | CloseAsked | EndAsked

# --- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Send a worker a message. What is said to one worker arrives in this order."""

    worker: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """All workers have opened the train: the answer to the driver's `open`. Said once."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The answer to the driver's `close`. ``steps``: of every worker; None when they are not equal.
    ``rows``: what each worker has, after rows were moved. ``left_out``: how many of all these rows
    nobody gets."""

    epoch: int
    steps: int | None
    rows: Mapping[str, int]
    left_out: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The train is over; "" when it was delivered to its end. Answers every call that still waits,
    and every later one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong, which the driver must hear of as an error. `Ended` follows, with the
    same text."""

    text: str


Effect = Say | Ready | Closed | Ended | Trouble
