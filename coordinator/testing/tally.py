"""What became of the faults of a script, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Of one fake executor and of everybody who came with it by its script."""

    stood_by: int = 0
    """Claims of its slot that were told to stand by."""

    usurped: int = 0
    """Duplicates that were granted its slot: none, as long as it lives."""

    refused: int = 0
    """Calls with a forged token that were refused: two for each impostor."""

    admitted: int = 0
    """Calls with a forged token that were answered: must be none."""

    lies: int = 0
    """Reports of a wrong generation that were acknowledged."""

    flooded: int = 0
    """Messages of a flood that were sent."""

    half_sent: int = 0
    """Half messages that were sent."""
