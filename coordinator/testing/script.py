"""What a fake executor does by itself, as data."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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
        Script(duplicates=2, floods=10_000)     # others claim its slot; it will not shut up

    A script travels to other processes as JSON, unless it holds an ``asyncio.Event``: name a gate
    (``Gates``) there.
    """

    joins_after: asyncio.Event | str | None = None
    """Late: reserves only when this is set; a name is that of a gate."""

    joins_after_seconds: float = 0.0
    """Late: reserves only after so much real time."""

    stand_by_delay: float | None = None
    """Seconds between two attempts at a slot that another attempt holds; None: as told."""

    steps: int = 0
    """How many steps it reports once ``main_fun`` is entered."""

    works_until: asyncio.Event | str | None = None
    """``main_fun`` returns when this is set; None: at once. A name is that of a gate."""

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

    duplicates: int = 0
    """So many more attempts claim its slot while it lives, as Spark's speculation makes them. They
    are gone when it has ended: Spark kills what did not return first."""

    impostors: int = 0
    """So many callers with a forged token claim its slot, and attend in its name."""

    wrong_generations: tuple[int, ...] = ()
    """Lies: given the cluster spec, and again in ``main_fun``, it reports an entry, a step and a
    crash of other generations, each so far from the right one."""

    floods: int = 0
    """So many beats and steps it sends in ``main_fun``, as fast as its connection takes them; fewer
    when ``works_until`` is set before, or it is told to stop."""

    half_open: int = 0
    """So many more sessions it opens in which it never says a word."""

    half_messages: int = 0
    """So many more connections on which it sends the first half of a message; every other one
    without a token."""

    gpus: tuple[str, ...] = ()
    """The UUIDs of GPUs that only it can have, unless it was given a ``FakeHost``."""

    answers_for_gpus: bool = True
    """False: told to look at GPUs, or to claim them, it says nothing."""

    renews_gpus: bool = True
    """False: its beats do not name the leases that it holds, so that they lapse."""

    keeps_gpus: bool = False
    """When it ends, something of it is left that uses its GPUs."""

    @classmethod
    def of(cls, role: Role) -> Script:
        """The good member of a role: ps and evaluators serve until they are told to stop."""
        return cls(serves=role in (Role.PS, Role.EVALUATOR))

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads, ready for JSON: whatever is not as usual. Raises ValueError
        when it holds an ``asyncio.Event``."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value == each.default:
                continue
            if isinstance(value, asyncio.Event):
                raise ValueError(
                    f"{each.name} is an asyncio.Event, which cannot travel: name a gate"
                )
            if isinstance(value, Moment):
                value = value.name
            if isinstance(value, ExitReport):
                value = value.to_json()
            found[each.name] = value
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Script:
        """Raises ValueError for anything but what ``to_dict`` makes."""
        read = dict(values)
        try:
            for name in {"dies_at", "silent_from"} & read.keys():
                read[name] = Moment[read[name]]
            if "report" in read:
                read["report"] = ExitReport.from_json(read["report"])
            for name in {"wrong_generations", "gpus"} & read.keys():
                read[name] = tuple(read[name])
            return cls(**read)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a script: {error!r}") from None
