"""A coordinator that is started again: what is on its disk, and what is the same afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from coordinator.core.durable import COME_BACK, Key, Record
from coordinator.core.gpu import LeaseState
from coordinator.core.lease_entry import QUARANTINE_AFTER, Entry
from coordinator.core.machine import Machine

OFFSET = 2.0**30
"""Instants that are whole halves or so stay exact with it."""

VOLATILE = {
    "Machine": {"_ledger", "_deadlines", "_forming", "_is_restored"},
    "LeaseBook": {"_ledger", "_deadlines", "_effects"},
    "Requests": {"_ledger"},
    "Entry": {"_ledger", "renewed_at"},
    "Run": {"_ledger", "_late", "_unanswered", "_blame_at"},
    "Restarts": {"_ledger"},
    "Member": {"_ledger", "last_heard_at", "progress_at", "stack"},
    "Gang": {"_ledger"},
    "GangLeases": {"_ledger", "_inspected"},
    "Ending": {"_ledger"},
    "OwnerClock": {"_sessions", "deadline"},
    "Holdout": {"_at"},
    "SilenceWatch": {"next_at"},
    "StallWatch": {"next_at"},
}
"""What nobody needs after a restart, or what follows from the rest. All other attributes there are
must come back, also those that somebody adds to a class tomorrow."""

POSTPONED = {"_forming_deadline", "_stage_deadline", "_verdict_deadline"}


class Disk:
    """All records, as JSON texts. ``offset``: from the machine's instants to Unix time; 0 where
    those of a test are not exact otherwise."""

    def __init__(self, offset: float = OFFSET) -> None:
        self.offset = offset
        self.texts: dict[Key, str] = {}

    def write(self, machine: Machine) -> None:
        changes = machine.take_changes(self.offset)
        assert not changes.put.keys() & changes.removed
        for key, record in changes.put.items():
            self.texts[key] = json.dumps(record, allow_nan=False)
        for key in changes.removed:
            self.texts.pop(key, None)
        assert not machine.has_changes

    def records(self) -> dict[Key, Record]:
        return {key: json.loads(text) for key, text in self.texts.items()}

    def start(self, now: float) -> Machine:
        machine = Machine.restore("book", self.records(), now, self.offset)
        machine.check_invariants()
        return machine


def restarted(machine: Machine, disk: Disk, now: float) -> Machine:
    """Another one, with the same state. Raises AssertionError when anything is not."""
    disk.write(machine)
    other = disk.start(now)
    assert picture(other, now) == picture(machine, now)
    assert other.run_ids() == machine.run_ids()
    assert not other.has_changes, "it has changed by itself"
    return other


def picture(thing: Any, now: float, seen: set[int] | None = None) -> Any:
    """All that can be reached from it by attributes, but for what is volatile."""
    seen = set() if seen is None else seen
    if isinstance(thing, str | int | float | Enum | None) or _is_value(thing):
        return thing
    if isinstance(thing, Mapping):
        return {key: picture(value, now, seen) for key, value in thing.items()}
    if isinstance(thing, set | frozenset):  # equal ones may be gone through in another order
        return sorted((picture(each, now, seen) for each in thing), key=repr)
    if isinstance(thing, list | tuple):
        return [picture(each, now, seen) for each in thing]
    if id(thing) in seen:
        return f"the {type(thing).__name__} of above"
    seen.add(id(thing))
    skipped = VOLATILE.get(type(thing).__name__, set())
    found = {"class": type(thing)}
    for name in sorted(_attributes(thing) - skipped):
        value = getattr(thing, name)
        found[name] = picture(_expected(thing, name, value, now), now, seen)
    return found


def _is_value(thing: Any) -> bool:
    return is_dataclass(thing) and thing.__dataclass_params__.frozen  # type: ignore[attr-defined]


def _attributes(thing: Any) -> set[str]:
    names = set(getattr(thing, "__dict__", ()))
    for each in type(thing).__mro__:
        names.update(getattr(each, "__slots__", ()))
    return {name for name in names if hasattr(thing, name)}


def _expected(thing: Any, name: str, value: Any, now: float) -> Any:
    """Nobody misses a deadline by the restart."""
    if name in POSTPONED and value < float("inf"):
        return max(value, now + COME_BACK)
    if isinstance(thing, Entry) and name == "since" and thing.state is LeaseState.UNPROVEN:
        return max(value, now + COME_BACK - QUARANTINE_AFTER)
    return value
