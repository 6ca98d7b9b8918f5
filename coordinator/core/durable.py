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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar, Protocol

from coordinator.core.durable_values import Codec, Load, codec, columns_of
from coordinator.core.policy import NO_RESTARTS, RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts

STATE_VERSION = 3
"""Of the records below. Another field, or another meaning of one, is another version, and a step
in ``MIGRATIONS``."""

COME_BACK = 30.0
"""Seconds that everybody has at least after a restart, whatever the deadline was before."""

Key = tuple[str, str]
"""Kind and key."""

Record = dict[str, Any]

_NEVER = float("inf")
_UNSET = object()
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
_PORTION = 500  # records that are read at once: few enough for the processor's caches


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
    _row: ClassVar[Codec]
    _key: Key
    _ledger: Ledger | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._fields = [(name, name.lstrip("_"), each) for name, each in cls.DURABLE.items()]
        columns = columns_of({field: each for _, field, each in cls._fields})

        def load(plains: Sequence[Any], offset: float) -> Sequence[Any]:
            return [*zip(*columns(plains, offset), strict=True)]

        cls._row = Codec(cls.record, load)

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

    def restore_from(self, records: Records) -> None:
        """Sets all attributes in ``DURABLE``, of which nobody is told. Raises BrokenRecord."""
        values = records.take(self._key, self._row)
        for _ in map(object.__setattr__, repeat(self), self.DURABLE, values):
            pass  # faster than a loop with calls

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
        self._loaded: dict[tuple[str, Load], dict[str, Any]] = {}
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
        return self.take((kind, key), codec)

    def load(self, thing: Tracked) -> None:
        """Sets all durable attributes. Raises BrokenRecord."""
        thing.restore_from(self)

    def take(self, key: Key, codec: Codec) -> Any:
        """The value of a record. All of its kind are read when the first one is asked for. Raises
        BrokenRecord."""
        kind, name = key
        records = self._by_kind.get(kind, {})
        loaded = self._loaded.get((kind, codec.load))
        if loaded is None:
            loaded = self._loaded[kind, codec.load] = self._load_all(records, codec.load)
        record = records.pop(name, None)
        if record is None:
            raise BrokenRecord(key, "it is missing")
        if name in loaded:
            return loaded.pop(name)
        try:
            return codec.load([record], self._offset)[0]
        except _UNREADABLE as error:
            raise BrokenRecord(key, repr(error)) from error

    def _load_all(self, records: Mapping[str, Any], load: Load) -> dict[str, Any]:
        """Nothing when one of them cannot be read: they are then read one by one, so that it is
        named."""
        plains = [*records.values()]
        loaded: list[Any] = []
        try:
            for first in range(0, len(plains), _PORTION):
                loaded += load(plains[first : first + _PORTION], self._offset)
        except _UNREADABLE:
            return {}
        return dict(zip(records, loaded, strict=True))

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


def _with_feed_ports(records: Mapping[Key, Record]) -> Mapping[Key, Record]:
    """Version 2: an endpoint says where Spark's feeders reach the member. Nobody was fed before."""
    return {
        key: {**record, "endpoint": {**record["endpoint"], "feed_port": 0}}
        if key[0] == "member" and record.get("endpoint")
        else record
        for key, record in records.items()
    }


def _with_restarts(records: Mapping[Key, Record]) -> Mapping[Key, Record]:
    """Version 3: runs that may restart, and members that may be late. Nobody was before."""
    never = StallTimeouts(start=None, step=None, checkpoint=None, evaluation=None)
    added: dict[str, Record] = {
        "run": {"restart_at": "inf"},
        "member": {"section": "start"},
        "spec": {
            "restart": codec(RestartPolicy).dump(NO_RESTARTS, 0.0),
            "stall": codec(StallTimeouts).dump(never, 0.0),
        },
    }
    numbers = dict.fromkeys(("count", "undone", "in_a_row", "best_step"), 0)
    nothing: Record = {**numbers, "best_saved": 0.0, "latest": []}
    return {
        **{key: {**record, **added.get(key[0], {})} for key, record in records.items()},
        **{("restarts", run_id): nothing for kind, run_id in records if kind == "run"},
    }


MIGRATIONS: Mapping[int, Migration] = {1: _with_feed_ports, 2: _with_restarts}
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
