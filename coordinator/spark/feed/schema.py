"""Columns that no tensor can be made of are refused on the driver, before any job is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from coordinator.core.errors import FeedMismatch

_TEXT_HINT = "cast it to a string or to numbers"
_REFUSED = {
    "MapType": "a map has no fixed columns: select its values (col['key']), or map_values(col)",
    "NullType": "it has no type: cast it (col.cast('float')), or leave it out",
    "CalendarIntervalType": "an interval is no number: cast or extract what you need of it",
    "YearMonthIntervalType": "an interval is no number: cast it to an int of months",
    "VariantType": "a variant has no type of its own: variant_get(col, '$.x', 'float')",
    "TimeType": f"a time of day has no tensor: {_TEXT_HINT}",
    "GeometryType": f"a shape has no tensor: {_TEXT_HINT}",
    "GeographyType": f"a shape has no tensor: {_TEXT_HINT}",
}
"""By Spark's name of the type, which says it in every version and kind of session."""


def check_columns(schema: Any) -> None:
    """``schema``: a DataFrame's. Raises FeedMismatch, naming all columns that cannot be fed."""
    if not schema.fields:
        raise FeedMismatch("the DataFrame has no columns: there is nothing to feed")
    counts = Counter(field.name for field in schema.fields)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise FeedMismatch(
            f"the DataFrame has several columns of one name: {', '.join(twice)}; rename them "
            "(df.toDF(...)), because members tell columns by their names"
        )
    problems = [text for field in schema.fields for text in _problems(field.name, field.dataType)]
    if problems:
        raise FeedMismatch(
            "these columns cannot be fed: " + "; ".join(problems), {"columns": "; ".join(problems)}
        )


def _problems(name: str, kind: Any) -> Iterator[str]:
    hint = _REFUSED.get(type(kind).__name__)
    if hint is not None:
        yield f"{name} ({_spelled(kind)}: {hint})"
    elif hasattr(kind, "sqlType"):  # a user-defined type is fed as what it consists of
        yield from _problems(name, kind.sqlType())
    elif hasattr(kind, "elementType"):
        yield from _problems(f"{name}[]", kind.elementType)
    elif hasattr(kind, "fields"):
        for field in kind.fields:
            yield from _problems(f"{name}.{field.name}", field.dataType)


def _spelled(kind: Any) -> str:
    try:
        return str(kind.simpleString())
    except Exception:  # a type of a later Spark
        return type(kind).__name__
