"""Immutable values, for what the sentinel loads.

`dataclasses` would do, but the sentinel starts before every member: importing that module takes as
long as a bare interpreter's start, and every class of it is compiled anew, about a millisecond
each. Everything else in this project uses `dataclasses`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """Compared, hashed and printed by its fields: the annotations of the subclass, in their order,
    with the class's attributes as defaults. One level of subclassing. `__post_init__` may raise."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(vars(cls).get("__annotations__", ()))
        type.__setattr__(cls, "__match_args__", cls.fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        values = dict(zip(cls.fields, args, strict=False))
        wrong = sorted((kwargs.keys() & values.keys()) | (kwargs.keys() - set(cls.fields)))
        if wrong or len(args) > len(cls.fields):
            raise TypeError(f"{cls.__name__}: unknown or given twice: {wrong or args}")
        values.update(kwargs)
        missing = [name for name in cls.fields if name not in values and not hasattr(cls, name)]
        if missing:
            raise TypeError(f"{cls.__name__}: missing {missing}")
        vars(self).update({name: values.get(name, getattr(cls, name, None)) for name in cls.fields})
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check what was given."""

    def replace(self, **changes: Any) -> Self:
        """The same with some fields changed, checked again."""
        return type(self)(**{**vars(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; records within are dicts, too."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({inside})"


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
