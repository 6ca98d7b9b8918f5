"""How long a member may be without progress, by what it is doing. Values only."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields

from coordinator.core.errors import InvalidRun


class Section(enum.Enum):
    """What a member says that it is doing; it begins in START."""

    START = "start"
    """From the entry into ``main_fun`` to the first progress."""
    STEP = "step"
    """From one step to the next."""
    CHECKPOINT = "checkpoint"
    EVALUATION = "evaluation"
    IDLE = "idle"
    """Nothing that can be counted: nobody waits for progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StallTimeouts:
    """Seconds without progress after which a member counts as stuck; None: for ever.

    Only who has reported progress once can be late with the next (``start`` is None unless it is
    set): a program that reports nothing is never called stuck.

    Raises InvalidRun.
    """

    start: float | None = None
    step: float | None = 1800.0
    checkpoint: float | None = 3600.0
    evaluation: float | None = 3600.0

    def __post_init__(self) -> None:
        for item in fields(self):
            seconds = getattr(self, item.name)
            if seconds is None:
                continue
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not is_number or not (math.isfinite(seconds) and seconds > 0):
                raise InvalidRun(
                    f"stall timeout {item.name}={seconds!r}: must be more than 0 seconds, or None"
                )

    def of(self, section: Section) -> float | None:
        """Seconds, or None: nobody waits for progress."""
        return None if section is Section.IDLE else getattr(self, section.value)


DEFAULT_STALL_TIMEOUTS = StallTimeouts()
