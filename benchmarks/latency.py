"""Many latencies as the figures show them. Knows nothing of where they come from."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of them do not exceed; infinity when there is none."""
    if not values:
        return float("inf")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(values: Sequence[float], share: float) -> str:
    """One cell; as many digits as mean something."""
    if not values:
        return "-"
    value = percentile(values, share) * 1000
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def bar(value: float, full: float, width: int = 30) -> str:
    """A cell of a drawn curve; an arrow where it leaves the picture."""
    cells = round(width * value / full)
    return "█" * cells if cells <= width else "█" * (width - 1) + "▶"
