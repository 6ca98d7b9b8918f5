"""Values as plain JSON and back, by their types: what records are made of.

A value that a record holds is described by its type alone, so that a field added to a dataclass of
``model`` or ``gpu`` is in the records without anybody's doing.

Values come back many at a time, field by field: there are ten thousands of records to read before a
coordinator answers, and most steps are then one call for all of them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import chain, islice
from operator import itemgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from coordinator.core.model import MemberId

Instant = Annotated[float, "instant"]
"""Seconds on the clock of the machine; in a record Unix seconds."""

Dump = Callable[[Any, float], Any]
Load = Callable[[Sequence[Any], float], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Codec:
    """``dump``: a value to plain JSON. ``load``: many of them back, in their order; raises
    AttributeError, KeyError, TypeError or ValueError when one is anything else. Both take the
    offset from the machine's instants to Unix time."""

    dump: Dump
    load: Load


@cache
def codec(kind: Any) -> Codec:
    """For a type as annotations write it. Raises TypeError for one that records cannot hold."""
    if kind == Instant:
        return Codec(_dump_instant, _load_instant)
    if hasattr(kind, "__supertype__"):  # a NewType
        return codec(kind.__supertype__)
    if kind is float:
        return Codec(_dump_float, _load_float)
    if kind in (str, int, bool):
        return Codec(lambda value, _: value, _checked(kind))
    if kind is MemberId:
        return Codec(lambda value, _: str(value), lambda plains, _: [*map(MemberId.parse, plains)])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _of_enum(kind)
    if is_dataclass(kind):
        return _of_dataclass(kind)
    return _of_generic(kind, get_origin(kind), get_args(kind))


def _of_generic(kind: Any, origin: Any, args: tuple[Any, ...]) -> Codec:
    if origin in (Union, UnionType):
        return _of_union(args)
    if origin is tuple and args[-1] is Ellipsis:
        return _of_many(codec(args[0]), tuple)
    if origin is tuple:
        return _of_row(tuple(map(codec, args)))
    if origin is frozenset:
        return _of_many(codec(args[0]), frozenset)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _of_mapping(codec(args[0]), codec(args[1]))
    raise TypeError(f"a record cannot hold {kind}")


# -- numbers: JSON has neither infinity nor NaN, and a user's metrics may be either ----------------


def _dump_float(value: float, _: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _load_float(plains: Sequence[float | str], _: float) -> list[float]:
    return [*map(float, plains)]


def _dump_instant(value: float, offset: float) -> float | str:
    return value + offset if math.isfinite(value) else str(value)


def _load_instant(plains: Sequence[float | str], offset: float) -> list[float]:
    return [value - offset for value in map(float, plains)]


# -- what is made of others ------------------------------------------------------------------------


def _checked(kind: type) -> Load:
    """What stands for itself."""

    def load(plains: Sequence[Any], _: float) -> Sequence[Any]:
        _check_all(kind, plains)
        return plains

    return load


def _check_all(kind: type, plains: Sequence[Any]) -> None:
    if set(map(type, plains)) - {kind}:
        odd = next(plain for plain in plains if type(plain) is not kind)
        raise TypeError(f"{odd!r} is no {'object' if kind is dict else kind.__name__}")


def _of_enum(kind: type[enum.Enum]) -> Codec:
    by_value = {each.value: each for each in kind}  # a look is far cheaper than a call of the type

    def load(plains: Sequence[Any], _: float) -> list[Any]:
        return [by_value[plain] if plain in by_value else kind(plain) for plain in plains]

    return Codec(lambda value, _: value.value, load)


def _of_dataclass(kind: Any) -> Codec:
    hints = get_type_hints(kind, include_extras=True)
    parts = {item.name: codec(hints[item.name]) for item in fields(kind)}
    columns = columns_of(parts)
    dumps = [(name, part.dump) for name, part in parts.items()]
    make = _by_keywords(kind, tuple(parts)) if _takes_keywords_only(kind) else kind

    def dump(value: Any, offset: float) -> dict[str, Any]:
        return {name: each(getattr(value, name), offset) for name, each in dumps}

    def load(plains: Sequence[Any], offset: float) -> list[Any]:
        return [*map(make, *columns(plains, offset))]

    return Codec(dump, load)


def _takes_keywords_only(kind: Any) -> bool:
    """At least for one of its fields."""
    return bool(kind.__init__.__code__.co_kwonlyargcount)


def _by_keywords(kind: Any, names: Sequence[str]) -> Callable[..., Any]:
    def make(*values: Any) -> Any:
        return kind(**dict(zip(names, values, strict=True)))

    return make


def columns_of(
    parts: Mapping[str, Codec],
) -> Callable[[Sequence[Any], float], list[Sequence[Any]]]:
    """Reads JSON objects with exactly these fields: for each of them the values of all objects."""
    loads = [(itemgetter(name), part.load) for name, part in parts.items()]

    def columns(plains: Sequence[Any], offset: float) -> list[Sequence[Any]]:
        _check_all(dict, plains)
        if set(map(len, plains)) - {len(parts)}:
            _check_names(plains, parts.keys())
        try:
            return [load([*map(get, plains)], offset) for get, load in loads]
        except KeyError:
            _check_names(plains, parts.keys())
            raise

    return columns


def _check_names(plains: Iterable[Mapping[str, Any]], wanted: Set[str]) -> None:
    for plain in plains:
        if odd := sorted(plain.keys() ^ wanted):
            raise TypeError(f"missing or unknown: {', '.join(odd)}")


def _of_union(args: tuple[Any, ...]) -> Codec:
    """``X | None`` as X or null; of several dataclasses the name says which it is."""
    rest = [each for each in args if each is not NoneType]
    if len(rest) == 1:
        return _of_optional(codec(rest[0]))
    by_name = {each.__name__: codec(each) for each in rest}

    def dump(value: Any, offset: float) -> list[Any]:
        name = type(value).__name__
        return [name, by_name[name].dump(value, offset)]

    def load(plains: Sequence[Any], offset: float) -> list[Any]:
        return [value for name, plain in plains for value in by_name[name].load([plain], offset)]

    return Codec(dump, load)


def _of_optional(part: Codec) -> Codec:
    def dump(value: Any, offset: float) -> Any:
        return None if value is None else part.dump(value, offset)

    def load(plains: Sequence[Any], offset: float) -> Sequence[Any]:
        present = [plain for plain in plains if plain is not None]
        values = part.load(present, offset)
        if len(present) == len(plains):
            return values
        each = iter(values)
        return [None if plain is None else next(each) for plain in plains]

    return Codec(dump, load)


def _of_many(part: Codec, kind: type[tuple[Any, ...]] | type[frozenset[Any]]) -> Codec:
    def dump(value: Any, offset: float) -> list[Any]:
        plain = [part.dump(each, offset) for each in value]
        return plain if kind is tuple else sorted(plain)

    def load(plains: Sequence[Any], offset: float) -> list[Any]:
        _check_all(list, plains)
        each = iter(part.load([*chain.from_iterable(plains)], offset))
        return [kind(islice(each, len(plain))) for plain in plains]

    return Codec(dump, load)


def _of_row(parts: tuple[Codec, ...]) -> Codec:
    def dump(value: Any, offset: float) -> list[Any]:
        return [part.dump(each, offset) for part, each in zip(parts, value, strict=True)]

    def load(plains: Sequence[Any], offset: float) -> list[Any]:
        _check_all(list, plains)
        for plain in plains:
            if len(plain) != len(parts):
                raise ValueError(f"{plain!r} is not of {len(parts)} values")
        columns = [part.load([*map(itemgetter(n), plains)], offset) for n, part in enumerate(parts)]
        return [*zip(*columns, strict=True)]

    return Codec(dump, load)


def _of_mapping(key: Codec, part: Codec) -> Codec:
    def dump(value: Any, offset: float) -> dict[str, Any]:
        return {key.dump(name, offset): part.dump(each, offset) for name, each in value.items()}

    def load(plains: Sequence[Any], offset: float) -> list[Any]:
        _check_all(dict, plains)
        names = key.load([*chain.from_iterable(plains)], offset)
        values = part.load([*chain.from_iterable(map(dict.values, plains))], offset)
        pairs = zip(names, values, strict=True)
        return [dict(islice(pairs, len(plain))) for plain in plains]

    return Codec(dump, load)
