"""What a coordinator that can be left running keeps over its own end: one record for each thing,
written again when the thing has changed.

| kind | key | what |
|---|---|---|
| ``book`` | ``numbers`` | the last number given, of a lease or an inspection |
| ``gpu`` | its UUID | one GPU of the book |
| ``grant`` | request | which GPUs a request for GPUs was granted, while it has any of them |
| ``over`` | request | that a request is over, and which before which |
| ``spec`` | run | what a run is; never changes |
| ``run`` | run | where it stands |
| ``gang`` | run | the number of cluster specs that it was given |
| ``gang_gpus`` | run | its request for GPUs |
| ``member`` | run/member | one slot, with what was offered and granted to it |
| ``ending`` | run | how it ends, once it does |
| ``end`` | run/number | the end of one member, in the order in which they were observed |

A record is a dict of plain JSON values; instants in it are Unix seconds. Not in any of them, since
it counts no more after a restart: when somebody was heard of last (all silences begin anew), the
sessions of members and owners, and the places in the queue of calls that wait (they ask again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from coordinator.core.durable_values import Codec, check_names

STATE_VERSION = 1
"""Of the records below. Another field, or another meaning of one, is another version, and a step
in ``MIGRATIONS``."""

COME_BACK = 30.0
"""Seconds that everybody has at least after a restart, whatever the deadline was before."""

Key = tuple[str, str]
"""Kind and key."""

Record = dict[str, Any]

_NEVER = float("inf")
_UNSET = object()
_Read = TypeVar("_Read")


class BrokenRecord(ValueError):
    """What was kept cannot be read: nothing is restored."""

    def __init__(self, key: Key, why: object) -> None:
        self.kind, self.key = key
        super().__init__(
            f"the record {self.key!r} of kind {self.kind!r} cannot be read: {why}. Start with a "
            "copy of the state from before, or with an empty one after all runs have ended"
        )


# -- out -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written, all of it or nothing."""

    put: Mapping[Key, Record]
    removed: frozenset[Key]


class Recorded(Protocol):
    """What has a record."""

    def record(self, offset: float) -> Record:
        """As it is now. ``offset``: from the machine's instants to Unix time."""


class Ledger:
    """Whose records are to be written. ``changed`` is never another dict."""

    __slots__ = ("changed", "removed")

    def __init__(self) -> None:
        self.changed: dict[Key, Recorded] = {}
        self.removed: set[Key] = set()

    def put(self, key: Key, thing: Recorded) -> None:
        """It is new, or has changed."""
        self.changed[key] = thing

    def remove(self, key: Key) -> None:
        """It is forgotten."""
        self.changed.pop(key, None)
        self.removed.add(key)

    def take(self, offset: float) -> Changes:
        """Everything since the last time."""
        put = {key: thing.record(offset) for key, thing in self.changed.items()}
        removed = frozenset(self.removed - put.keys())
        self.clear()
        return Changes(put, removed)

    def clear(self) -> None:
        """All of it is known."""
        self.changed.clear()
        self.removed.clear()


@dataclass(frozen=True, slots=True)
class Constant:
    """The record of a value that does not change."""

    codec: Codec
    value: Any

    def record(self, offset: float) -> Record:
        """As it is."""
        plain: Record = self.codec.dump(self.value, offset)
        return plain


class Tracked:
    """Its record is written again when an attribute in ``DURABLE`` is set to another value.

    So their values are immutable, or at least never changed in place. ``track`` comes before any
    attribute is set; without a ledger nobody keeps anything.
    """

    __slots__ = ("_key", "_ledger")

    DURABLE: ClassVar[Mapping[str, Codec]] = {}

    _fields: ClassVar[list[tuple[str, str, Codec]]] = []
    _key: Key
    _ledger: Ledger | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._fields = [(name, name.lstrip("_"), each) for name, each in cls.DURABLE.items()]

    def track(self, ledger: Ledger | None, kind: str, key: str) -> None:
        """Who is told, and under which name."""
        object.__setattr__(self, "_ledger", ledger)
        object.__setattr__(self, "_key", (kind, key))

    @property
    def record_key(self) -> Key:
        """Kind and key of its record."""
        return self._key

    def __setattr__(self, name: str, value: Any) -> None:
        ledger = self._ledger
        if ledger is not None and name in self.DURABLE and getattr(self, name, _UNSET) != value:
            ledger.changed[self._key] = self
        object.__setattr__(self, name, value)

    def __setstate__(self, state: Any) -> None:
        """A copy is filled in any order."""
        for part in state if isinstance(state, tuple) else (state,):
            for name, value in (part or {}).items():
                object.__setattr__(self, name, value)

    def record(self, offset: float) -> Record:
        """As it is now."""
        return {field: each.dump(getattr(self, name), offset) for name, field, each in self._fields}

    def forget(self) -> None:
        """Nobody needs its record any more."""
        if self._ledger is not None:
            self._ledger.remove(self._key)


# -- in --------------------------------------------------------------------------------------------


class Records:
    """What was kept, to be read once. ``offset``: from the machine's instants to Unix time."""

    def __init__(self, records: Mapping[Key, Mapping[str, Any]], now: float, offset: float) -> None:
        self.now = now
        self._offset = offset
        self._by_kind: dict[str, dict[str, Mapping[str, Any]]] = {}
        for (kind, key), record in records.items():
            self._by_kind.setdefault(kind, {})[key] = record

    def keys(self, kind: str) -> list[str]:
        """Of those that nobody has read yet, in a fixed order."""
        return sorted(self._by_kind.get(kind, ()))

    def has(self, kind: str, key: str) -> bool:
        """Whether there is such a record."""
        return key in self._by_kind.get(kind, ())

    def value(self, kind: str, key: str, codec: Codec) -> Any:
        """A value that does not change. Raises BrokenRecord."""
        return self._read((kind, key), lambda record: codec.load(record, self._offset))

    def load(self, thing: Tracked) -> None:
        """Sets all durable attributes. Raises BrokenRecord."""
        self._read(thing.record_key, lambda record: self._load(thing, record))

    def _load(self, thing: Tracked, record: Mapping[str, Any]) -> None:
        wanted = thing._fields
        check_names(record, {field for _, field, _ in wanted})
        for name, field, each in wanted:
            object.__setattr__(thing, name, each.load(record[field], self._offset))

    def _read(self, key: Key, read: Callable[[Mapping[str, Any]], _Read]) -> _Read:
        record = self._by_kind.get(key[0], {}).pop(key[1], None)
        if record is None:
            raise BrokenRecord(key, "it is missing")
        try:
            return read(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BrokenRecord(key, repr(error)) from error

    def check_all_read(self) -> None:
        """Raises BrokenRecord when one belongs to nothing."""
        for kind, records in self._by_kind.items():
            for key in records:
                raise BrokenRecord((kind, key), "it belongs to nothing that is known")

    def postponed(self, deadline: float, longest: float) -> float:
        """A deadline of before: nobody misses it because of our absence. ``longest``: how far ahead
        it can be at most, should the wall clock have been set back."""
        if deadline == _NEVER:
            return _NEVER
        latest = self.now + max(longest, COME_BACK)
        return min(max(deadline, self.now + COME_BACK), latest)


# -- versions --------------------------------------------------------------------------------------

Migration = Callable[[Mapping[Key, Record]], Mapping[Key, Record]]

MIGRATIONS: Mapping[int, Migration] = {}
"""By the version that a step starts from; it ends with the next one."""


def migrate(
    records: Mapping[Key, Record],
    from_version: int,
    *,
    to_version: int = STATE_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> Mapping[Key, Record]:
    """Records of an older version, step by step to ``to_version``. Raises ValueError when there is
    no way: they are of a newer version, or of one that is not supported any more."""
    if from_version > to_version:
        raise ValueError(
            f"the state is of version {from_version}, this tflease reads up to {to_version}: "
            "use the newer tflease that has written it"
        )
    for version in range(from_version, to_version):
        step = migrations.get(version)
        if step is None:
            raise ValueError(f"this tflease cannot read state of version {version} any more")
        records = step(records)
    return records
