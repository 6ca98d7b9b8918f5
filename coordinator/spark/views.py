"""Runs, results and feeds as HTML for notebooks: inline styles that suit light and dark pages, no
script, and of every size no more than a page. What users and members have written is escaped."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.core import diagnosis
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberPhase,
    MemberView,
    RunPhase,
    RunView,
)
from coordinator.core.restarts import SAVED_AT

MAX_ROWS = 50
"""So many members are shown; of more only the number is told."""

_MAX_TEXT = 300  # characters of a cell
_MAX_METRICS = 4  # the user's own come first
_NO_METRICS = {diagnosis.TOTAL_STEPS, SAVED_AT}  # a step's other half, and a time since 1970

_GREEN, _YELLOW, _RED, _GREY = "46,160,67", "210,153,34", "218,54,51", "128,128,128"
_COLOURS = {
    RunPhase.RUNNING: _GREEN,
    RunPhase.SUCCEEDED: _GREEN,
    RunPhase.FAILED: _RED,
    RunPhase.CANCELLED: _GREY,
    MemberPhase.RUNNING: _GREEN,
    MemberPhase.EXITED: _GREY,
    MemberPhase.STOPPED: _GREY,
    MemberPhase.LOST: _RED,
    MemberPhase.FENCED: _RED,
}
_ENDS = {Cause.COMPLETED: _GREEN, Cause.STOPPED: _GREY}
_LINE = "1px solid rgba(128,128,128,.35)"
_TABLE = (  # a page in quirks mode would give tables colours and sizes of their own
    "border-collapse:collapse;background:transparent;color:inherit;font-size:inherit;margin:.3em 0"
)
_CELL = f"padding:.2em .7em;border-bottom:{_LINE};vertical-align:top"


def run(view: RunView, headline: str = "") -> str:
    """A run and its members. ``headline``: in place of what it is waiting for."""
    parts = [_head(view, headline or diagnosis.headline(view, time.time()))]
    if (share := diagnosis.share_done(view)) is not None:
        parts.append(bar(share))
    parts += [paragraph(line) for line in diagnosis.history(view)[-3:]]
    if view.stop_reason and view.failure is None:
        parts.append(paragraph(f"stopped because: {view.stop_reason}"))
    if view.failure is not None:
        parts.append(paragraph(f"failed: {view.failure.summary}", _RED))
    return page(*parts, _members(view))


def result(name: str, seconds: float, returned: Mapping[str, Any], missing: Mapping[str, str],
           restarts: Sequence[object] = (), generations: int = 1) -> str:  # fmt: skip
    """What ``cluster.wait`` returns."""
    text = f"{seconds:,.1f} s"
    if restarts or generations > 1:
        text += f", started together {generations:,} times"
    rows = [(member, badge("returned", _GREEN), escaped(shown(value)))
            for member, value in returned.items()]  # fmt: skip
    rows += [(member, badge("missing", _GREY), escaped(why)) for member, why in missing.items()]
    head = f"<b>{escaped(name)}</b> {badge('succeeded', _GREEN)} {escaped(text)}"
    return page(f"<div>{head}</div>", table(("member", "", "value"), _most(rows, "members")))


def feed(summary: str, headings: Sequence[str], epochs: Iterable[Sequence[str]]) -> str:
    """What ``cluster.train`` returns."""
    rows = [tuple(map(escaped, each)) for each in epochs]
    right = range(len(headings) - 1)
    return page(paragraph(summary), table(headings, _most(rows, "epochs", last=True), right))


# -- parts -----------------------------------------------------------------------------------------


def page(*parts: str) -> str:
    """Of HTML."""
    return f'<div style="font-size:.9em;line-height:1.5">{"".join(parts)}</div>'


def paragraph(text: str, colour: str = "") -> str:
    """Of text."""
    style = f' style="color:rgb({colour})"' if colour else ""
    return f"<div{style}>{escaped(text)}</div>"


def badge(text: str, colour: str) -> str:
    """A word with a colour behind it that leaves the page's own readable."""
    style = f"background:rgba({colour},.22);border-radius:.6em;padding:0 .6em;white-space:nowrap"
    return f'<span style="{style}">{escaped(text)}</span>'


def bar(share: float) -> str:
    """How much is done, from 0 to 1."""
    shape = "height:.4em;border-radius:.2em"
    done = f'<div style="{shape};width:{share:.1%};background:rgb({_GREEN})"></div>'
    return (
        f'<div style="{shape};max-width:40em;margin:.3em 0;background:rgba({_GREY},.25)">'
        f"{done}</div>"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """``headings`` are text, cells HTML; ``right``: columns of numbers."""
    numbers = set(right)
    align = ["right" if column in numbers else "left" for column in range(len(headings))]

    def row(kind: str, cells: Iterable[str]) -> str:
        made = (
            f'<{kind} style="{_CELL};text-align:{side}">{cell}</{kind}>'
            for cell, side in zip(cells, align, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return (
        f'<table style="{_TABLE}"><thead>{row("th", map(escaped, headings))}</thead>'
        f"<tbody>{body}</tbody></table>"
    )


def escaped(text: str) -> str:
    """One line of it, bounded, without what would change its direction or end its element."""
    line = " ".join(str(text).split())
    line = line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 3]}..."
    return html.escape("".join(each if each.isprintable() else "?" for each in line))


def shown(value: object) -> str:
    """Its ``repr``, whatever that does."""
    try:
        return repr(value)
    except Exception as error:  # anything at all: it is the user's class
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"


# -- a run -----------------------------------------------------------------------------------------


def _head(view: RunView, headline: str) -> str:
    mark = badge(view.phase.value, _COLOURS.get(view.phase, _YELLOW))
    text = "" if headline == view.phase.value else escaped(headline)
    return f"<div><b>{escaped(view.spec.name)}</b> {mark} {text}</div>"


def _members(view: RunView) -> str:
    has_gpus = bool(view.spec.gpus.total)
    headings = ["member", "phase", "step", "metrics", *(["GPUs"] if has_gpus else []), "where"]
    rows = []
    members = sorted(view.members, key=_is_well) if len(view.members) > MAX_ROWS else view.members
    for member in members:
        colour = _COLOURS.get(member.phase, _YELLOW)
        if member.exit is not None and member.phase.has_ended:
            colour = _ENDS.get(member.exit.cause, _RED)
        gpus = ", ".join(member.gpus) or ("0" if view.spec.gpus.count(member.id.role) else "")
        rows.append((
            escaped(str(member.id)),
            f"{badge(member.phase.value, colour)} {escaped(_end(member.exit))}",
            escaped(_step(member)),
            escaped(_metrics(member.metrics)),
            *([escaped(gpus)] if has_gpus else []),
            escaped(str(member.executor or "")),
        ))  # fmt: skip
    return table(headings, _most(rows, "members"), right=(2,))


def _is_well(member: MemberView) -> bool:
    """Those in trouble come first where not all are shown."""
    return member.phase not in (MemberPhase.LOST, MemberPhase.FENCED) and member.exit is None


def _end(report: ExitReport | None) -> str:
    if report is None or report.cause is Cause.COMPLETED:
        return ""
    why = report.exception_type or report.reason
    return f"{report.cause.value}, {why}" if why else report.cause.value


def _step(member: MemberView) -> str:
    if not member.step:
        return ""
    total = member.metrics.get(diagnosis.TOTAL_STEPS)
    return f"{member.step:,}" + (f" of {total:,.0f}" if total is not None else "")


def _metrics(metrics: Mapping[str, float]) -> str:
    names = sorted(metrics.keys() - _NO_METRICS, key=lambda name: (name.startswith("fetch/"), name))
    told = [f"{name} {metrics[name]:.4g}" for name in names[:_MAX_METRICS]]
    more = len(names) - len(told)
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def _most(rows: Sequence[Sequence[str]], what: str, *, last: bool = False) -> list[Sequence[str]]:
    """The first of very many, or the last."""
    more = len(rows) - MAX_ROWS
    if more <= 0:
        return list(rows)
    note = (f"and {more:,} more {what}", *[""] * (len(rows[0]) - 1))
    return [note, *rows[-MAX_ROWS:]] if last else [*rows[:MAX_ROWS], note]
