"""Runs for people: a table of them, or one with its members."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.core import diagnosis
from coordinator.core.model import ExitReport, Failure, MemberPhase, MemberView, RunPhase, RunView

_RESTARTS = 10
"""So many of a run's restarts are shown."""

_STYLES = {
    RunPhase.RUNNING: "green",
    RunPhase.SUCCEEDED: "green",
    RunPhase.STOPPING: "yellow",
    RunPhase.RESTARTING: "yellow",
    RunPhase.FORMING: "yellow",
    RunPhase.FAILED: "bold red",
}


def all_runs(runs: Sequence[RunView], now: float) -> RenderableType:
    """``now`` in Unix seconds, as the instants of the views."""
    if not runs:
        return Text("no runs")
    table = Table(box=None, pad_edge=False)
    for heading in ("RUN", "NAME", "PHASE", "MEMBERS", "AGE"):
        table.add_column(heading, no_wrap=True)
    table.add_column("WAITING FOR", overflow="fold")
    for run in runs:
        failed = run.failure.summary.partition("\n")[0] if run.failure else ""
        table.add_row(
            run.run_id,
            _text(run.spec.name),
            _phase(run.phase),
            _members(run),
            age(now - run.created_at),
            _text("; ".join(run.diagnosis) or failed),
        )
    return table


def one_run(run: RunView, now: float) -> RenderableType:
    """With its members, what it waits for and why it failed."""
    head = Text.assemble("run ", (run.run_id, "bold"), f" {clean(run.spec.name)}: ")
    head.append_text(_phase(run.phase))
    head.append(f", {_members(run)}, created {age(now - run.created_at)} ago")
    lines: list[RenderableType] = [head]
    if run.stop_reason:
        lines.append(_text(f"stopped because: {run.stop_reason}"))
    lines += [_text(line) for line in _restarts(run)]
    lines += [_text(f"waiting for {sentence}") for sentence in run.diagnosis]
    if run.failure is not None:
        lines.append(Text(clean(f"failed: {run.failure.summary}"), style="bold red"))
        lines += [_text(f"  also: {other}") for other in _others(run.failure, run)]
    return Group(*lines, Text(""), _member_table(run, now))


def _others(failure: Failure, run: RunView) -> tuple[str, ...]:
    """Once the outcome is known the restarts come last among them, and were told already."""
    others = failure.others
    return others[: len(others) - len(run.restarts)] if run.settled else others


def _restarts(run: RunView) -> list[str]:
    """The latest of them."""
    shown = diagnosis.history(run)[-_RESTARTS:]
    more = run.restart_count - len(shown)
    return [*[f"{more} restarts before these:"] * (bool(shown) and more > 0), *shown]


def _member_table(run: RunView, now: float) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("MEMBER", "PHASE", "SINCE"):
        table.add_column(heading, no_wrap=True)
    has_gpus = bool(run.spec.gpus.total)
    for heading in ("WHERE", *(["GPUS"] if has_gpus else []), "STEP", "END"):
        table.add_column(heading, overflow="fold")
    for member in run.members:
        table.add_row(
            str(member.id),
            member.phase.value,
            age(now - member.phase_at),
            _text(str(member.executor or "")),
            *([_gpus(run, member)] if has_gpus else []),
            str(member.step or ""),
            _text(_end(member.exit)),
        )
    return table


def _gpus(run: RunView, member: MemberView) -> Text:
    """What it has; how many it asked for while it has none."""
    if member.gpus:
        return _text("\n".join(member.gpus))
    asked = run.spec.gpus.count(member.id.role)
    return Text(f"0/{asked}" if asked else "")


def _members(run: RunView) -> str:
    total = len(run.members)
    if run.phase is RunPhase.FORMING:
        return f"{_count(run.members, MemberPhase.READY)}/{total} ready"
    if run.phase is RunPhase.RUNNING:
        return f"{_count(run.members, MemberPhase.RUNNING)}/{total} running"
    return f"{sum(member.phase.has_ended for member in run.members)}/{total} gone"


def _count(members: Sequence[MemberView], phase: MemberPhase) -> int:
    return sum(member.phase is phase for member in members)


def _end(report: ExitReport | None) -> str:
    if report is None:
        return ""
    how = report.exception_type or report.reason
    if report.signal is not None:
        how = how or f"signal {report.signal}"
    elif report.exit_code:
        how = how or f"exit code {report.exit_code}"
    return f"{report.cause.value}, {how}" if how else report.cause.value


def _phase(phase: RunPhase) -> Text:
    return Text(phase.value, style=_STYLES.get(phase, ""))


def _text(value: str) -> Text:
    return Text(clean(value))


def clean(value: str) -> str:
    """Without what would move a terminal's cursor: names and errors come from users."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in value)


def age(seconds: float) -> str:
    """ "8 s", "12 min", "3 h 5 min", "4 d 2 h"."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
