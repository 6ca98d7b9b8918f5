"""Values as plain JSON and back, by their types: what records are made of.

A value that a record holds is described by its type alone, so that a field added to a dataclass of
``model`` or ``gpu`` is in the records without anybody's doing.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from coordinator.core.model import MemberId

Instant = Annotated[float, "instant"]
"""Seconds on the clock of the machine; in a record Unix seconds."""

Convert = Callable[[Any, float], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """``dump``: a value to plain JSON; ``load``: back, which raises KeyError, TypeError or
    ValueError for anything else. Both take the offset from the machine's instants to Unix time."""

    dump: Convert
    load: Convert


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
        return Codec(lambda value, _: str(value), lambda plain, _: MemberId.parse(plain))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Codec(lambda value, _: value.value, lambda plain, _: kind(plain))
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


def _load_float(plain: float | str, _: float) -> float:
    return float(plain)


def _dump_instant(value: float, offset: float) -> float | str:
    return value + offset if math.isfinite(value) else str(value)


def _load_instant(plain: float | str, offset: float) -> float:
    return float(plain) - offset


def _checked(kind: type) -> Convert:
    def load(plain: Any, _: float) -> Any:
        if type(plain) is not kind:
            raise TypeError(f"{plain!r} is no {kind.__name__}")
        return plain

    return load


# -- what is made of others ------------------------------------------------------------------------


def _of_dataclass(kind: Any) -> Codec:
    hints = get_type_hints(kind, include_extras=True)
    parts = [(item.name, codec(hints[item.name])) for item in fields(kind)]
    names = {name for name, _ in parts}
    dumps = [(name, part.dump) for name, part in parts]
    loads = [(name, part.load) for name, part in parts]

    def dump(value: Any, offset: float) -> dict[str, Any]:
        return {name: each(getattr(value, name), offset) for name, each in dumps}

    def load(plain: Any, offset: float) -> Any:
        check_names(plain, names)
        return kind(**{name: each(plain[name], offset) for name, each in loads})

    return Codec(dump, load)


def check_names(plain: Any, wanted: Set[str]) -> None:
    """Raises TypeError for anything but a JSON object with exactly these fields."""
    if not isinstance(plain, dict):
        raise TypeError(f"{plain!r} is no object")
    if plain.keys() != wanted:
        odd = sorted(plain.keys() ^ wanted)
        raise TypeError(f"missing or unknown: {', '.join(odd)}")


def _of_union(args: tuple[Any, ...]) -> Codec:
    """``X | None`` as X or null; of several dataclasses the name says which it is."""
    rest = [each for each in args if each is not NoneType]
    if len(rest) == 1:
        only = codec(rest[0])
        return Codec(
            lambda value, offset: None if value is None else only.dump(value, offset),
            lambda plain, offset: None if plain is None else only.load(plain, offset),
        )
    by_name = {each.__name__: codec(each) for each in rest}

    def dump(value: Any, offset: float) -> list[Any]:
        name = type(value).__name__
        return [name, by_name[name].dump(value, offset)]

    def load(plain: Any, offset: float) -> Any:
        name, value = plain
        return by_name[name].load(value, offset)

    return Codec(dump, load)


def _of_many(part: Codec, kind: type[tuple[Any, ...]] | type[frozenset[Any]]) -> Codec:
    def dump(value: Any, offset: float) -> list[Any]:
        plain = [part.dump(each, offset) for each in value]
        return plain if kind is tuple else sorted(plain)

    def load(plain: Any, offset: float) -> Any:
        _check_list(plain)
        return kind(part.load(each, offset) for each in plain)

    return Codec(dump, load)


def _of_row(parts: tuple[Codec, ...]) -> Codec:
    def dump(value: Any, offset: float) -> list[Any]:
        return [part.dump(each, offset) for part, each in zip(parts, value, strict=True)]

    def load(plain: Any, offset: float) -> Any:
        _check_list(plain)
        return tuple(part.load(each, offset) for part, each in zip(parts, plain, strict=True))

    return Codec(dump, load)


def _check_list(plain: Any) -> None:
    if not isinstance(plain, list):
        raise TypeError(f"{plain!r} is no list")


def _of_mapping(key: Codec, part: Codec) -> Codec:
    def dump(value: Any, offset: float) -> dict[str, Any]:
        return {key.dump(name, offset): part.dump(each, offset) for name, each in value.items()}

    def load(plain: Any, offset: float) -> Any:
        if not isinstance(plain, dict):
            raise TypeError(f"{plain!r} is no object")
        return {key.load(name, offset): part.load(each, offset) for name, each in plain.items()}

    return Codec(dump, load)
