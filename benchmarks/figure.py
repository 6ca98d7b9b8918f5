"""What a figure is: something that measures, and the tables and sentences that it comes back with.

Owns the values that figures and the report share. Must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for. ``say`` one line at a time while measuring.

    ``members``, ``minutes``: 0 means as many, or as long, as the figure has by default. ``tls``:
    over mutual TLS instead of plain text, where the figure can do both.
    """

    repeats: int
    console: Console
    members: int = 0
    minutes: float = 0.0
    tls: bool = False

    def say(self, line: str) -> None:
        """A line of progress; not part of the result."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Table:
    """Texts only: whoever measured knows how many digits mean something."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """A measured figure.

    ``verdict``: against the bound that was promised, in a sentence. ``is_sound``: False when the
    measuring itself found something wrong (a process left behind, a repetition that failed); a
    bound that was missed is no such thing. ``machine``: facts that only this figure knows.
    """

    what: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    verdict: str
    is_sound: bool
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """An entry of the registry; ``measure`` may take minutes. ``repeats``: how often each case is
    measured unless the command line says otherwise."""

    name: str
    summary: str
    measure: Callable[[Settings], Result]
    repeats: int = 10
