"""Several measurements of one thing, as the figures show them.

Texts for tables and verdicts; must not know what was measured, nor in which unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def median_and_worst(values: Sequence[float], digits: int = 1) -> tuple[str, str]:
    """Two cells."""
    return f"{median(values):.{digits}f}", f"{max(values):.{digits}f}"


def in_order(values: Sequence[float], digits: int = 1) -> str:
    """Every value, sorted: nothing is left out."""
    return " ".join(f"{value:.{digits}f}" for value in sorted(values))


def verdict_on(value: float, bound: float) -> str:
    """Against a bound that may be reached but not passed."""
    return "met" if value <= bound else "MISSED"
