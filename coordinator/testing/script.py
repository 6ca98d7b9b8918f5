"""What a fake executor does by itself, as data."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from coordinator.core.model import Cause, ExitReport, Proof, Role

COMPLETED = ExitReport(Cause.COMPLETED, exit_code=0, proof=Proof.KERNEL)
"""``main_fun`` returned."""

STOPPED = ExitReport(Cause.STOPPED, signal=15, killed_by_us=True, proof=Proof.KERNEL)
"""The member was told to stop, and did."""


class Moment(enum.Enum):
    """Points in the life of a member, in their order."""

    RESERVED = "its slot is reserved"
    ATTENDING = "its session is open"
    READY = "its process has imported"
    STARTED = "it has been given the cluster spec"
    ENTERED = "main_fun is entered"


@dataclass(frozen=True, slots=True)
class Script:
    """A member's behaviour; the default one is a good member whose ``main_fun`` returns at once.

    ::

        Script(dies_at=Moment.ENTERED)      # vanishes in the middle of training
        Script(silent_from=Moment.READY)    # connected, but not heard of any more
        Script(serves=True, obeys_stop=False)   # hangs, whatever it is told
    """

    joins_after: asyncio.Event | None = None
    """Late: reserves only when this is set."""

    stand_by_delay: float | None = None
    """Seconds between two attempts at a slot that another attempt holds; None: as told."""

    steps: int = 0
    """How many steps it reports once ``main_fun`` is entered."""

    works_until: asyncio.Event | None = None
    """``main_fun`` returns when this is set; None: at once."""

    serves: bool = False
    """``main_fun`` never returns by itself, as that of a parameter server."""

    report: ExitReport = COMPLETED
    """How it ends when nobody stops it."""

    obeys_stop: bool = True
    """False: told to stop, it goes on beating and never ends."""

    dies_at: Moment | None = None
    """Its connection drops there, without a goodbye, for ever."""

    silent_from: Moment | None = None
    """It stops beating and doing anything there; its connection stays open."""

    @classmethod
    def of(cls, role: Role) -> Script:
        """The good member of a role: ps and evaluators serve until they are told to stop."""
        return cls(serves=role in (Role.PS, Role.EVALUATOR))
