"""What the readers of our JSON files and messages check alike. Everything here raises ValueError or
TypeError with words for whoever wrote the JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def require(condition: bool, complaint: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(complaint)


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that the text is. ValueError when it is anything else."""
    raw = json.loads(text)
    require(isinstance(raw, dict), "not a JSON object")
    return dict(raw)


def strings(values: Iterable[Any]) -> tuple[str, ...]:
    """The strings that the values are. TypeError when they are anything else."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected strings, got {values!r}")
    return tuple(values)
