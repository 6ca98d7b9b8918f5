"""A result on the terminal, and in docs/benchmarks.md.

The document has one section for each figure, between two comments; measuring one figure again
replaces its section and leaves the others, with their own dates and machines, as they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.figure import Figure, Result, Table

_HEAD = """\
# Benchmarks

Written by `make bench`: every number here was measured, on the machine that its section names, and
none is a promise for another one. Nothing in the tests depends on them.
"""


def show(console: Console, figure: Figure, result: Result, facts: Mapping[str, str]) -> None:
    """Everything that the document gets, for people to read now."""
    console.print()
    console.print(f"[bold]{figure.name}[/bold]", highlight=False, soft_wrap=True)
    console.print(result.what, markup=False, highlight=False, soft_wrap=True)
    for table in result.tables:
        shown = RichTable(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for note in result.notes:
        console.print(f"- {note}", markup=False, highlight=False, soft_wrap=True)
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{figure.name}: {result.verdict}",
        style="bold",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def write(path: Path, figure: Figure, result: Result, facts: Mapping[str, str]) -> None:
    """Puts the figure's section into the document, made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else _HEAD
    path.write_text(with_section(text, figure.name, section(figure, result, facts)))


def with_section(text: str, name: str, content: str) -> str:
    """The document with this section in place of the one it had, or at its end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    marked = f"{begin}\n{content.strip()}\n{end}"
    old = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if old.search(text):
        return old.sub(lambda _: marked, text)
    return f"{text.rstrip()}\n\n{marked}\n"


def section(figure: Figure, result: Result, facts: Mapping[str, str]) -> str:
    """One figure as Markdown."""
    parts = [f"## {figure.name}", result.what, f"**Verdict:** {result.verdict}."]
    parts += [_markdown(table) for table in result.tables]
    parts.append("\n".join(f"- {note}" for note in result.notes))
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    head = [_row(table.columns), _row(("---",) * len(table.columns))]
    return "\n".join([f"{table.title}:", "", *head, *map(_row, table.rows)])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
