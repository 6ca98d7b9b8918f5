"""``tflease journal``: what a daemon's journal has in it, and whether it is sound."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from coordinator.cli import connection
from coordinator.paths import expanded

if TYPE_CHECKING:
    from coordinator.journal_report import Report

journal = typer.Typer(no_args_is_help=True)

JournalPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        envvar="TFLEASE_JOURNAL",
        help="The file; default: tflease/journal.sqlite in $XDG_STATE_HOME or ~/.local/state.",
        show_default=False,
    ),
]


@journal.callback()
def about() -> None:
    """Look into the journal of a `tflease serve`, the file with what outlives a restart.

    Both commands only read, and work while the daemon runs.
    """


@journal.command("check")
def check(
    path: JournalPath = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs to read.")
    ] = False,
) -> None:
    """Read the whole journal and say what is in it, and whether it is sound.

    The exit code is 0 when it is sound, and 1 when it is damaged, missing or cannot be read.

    Examples:

    * `tflease journal check`
    * `tflease journal check /var/lib/tflease/journal.sqlite --json`
    """
    from coordinator import journal_report

    report = journal_report.check(chosen(path))
    if as_json:
        typer.echo(json.dumps(_plain(report), indent=2))
    else:
        _show(report)
    if not report.is_sound:
        raise typer.Exit(connection.FAILED)


@journal.command("export")
def export(
    path: JournalPath = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file, for you alone; default: the terminal."),
    ] = None,
) -> None:
    """Write all of the journal as lines of JSON: a header, the records, the events.

    The records are the daemon's state at one instant. An older version's journal is given as this
    version would have it. The exit code is 1 when it cannot be read.

    Examples:

    * `tflease journal export | jq 'select(.type == "event") | .text'`
    * `tflease journal export --output journal.jsonl`
    """
    source = chosen(path)
    if output is None:
        try:
            _write(source, sys.stdout)
        except BrokenPipeError:  # `| head` has seen enough; nothing is left to flush into
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        connection.give_up(f"{output} exists already: name a new file")
    except OSError as error:
        connection.give_up(f"{output} cannot be made: {error.strerror}")
    is_whole = False
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            _write(source, file)
        is_whole = True
    except OSError as error:
        connection.give_up(f"{output} cannot be written: {error.strerror}")
    finally:
        if not is_whole:
            with suppress(OSError):
                output.unlink()


def chosen(path: Path | None) -> Path:
    """The journal's file, from its root on. Ends the command when that can be no file."""
    from coordinator.journal import default_journal_path

    try:
        found = expanded(path or default_journal_path()).absolute()
        is_file = bool(found.resolve().name)
    except (OSError, RuntimeError) as error:  # a loop of links; nobody has a home folder
        connection.give_up(f"the journal {path or ''} cannot be found: {error}")
    if not is_file:
        connection.give_up(f"the journal {found} is a folder: name a file")
    return found


def _write(source: Path, file: TextIO) -> None:
    from coordinator import journal_report
    from coordinator.journal_values import JournalUnusable

    try:
        for line in journal_report.export(source):
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()
    except JournalUnusable as error:
        connection.give_up(str(error))


def _plain(report: Report) -> dict[str, Any]:
    from coordinator.cli.run_json import time_text

    facts = report.facts
    return {
        "path": str(report.path),
        "sound": report.is_sound,
        "problems": report.problems,
        "schema_version": facts and facts.schema_version,
        "state_version": facts and facts.state_version,
        "coordinator_id": facts and facts.coordinator_id,
        "created_at": facts and time_text(facts.created_at),
        "records": report.records,
        "events": {
            "count": report.events,
            "first_id": report.event_ids and report.event_ids[0],
            "last_id": report.event_ids and report.event_ids[1],
            "first_at": report.event_times and time_text(report.event_times[0]),
            "last_at": report.event_times and time_text(report.event_times[1]),
        },
        "size": report.size,
        "wal_size": report.wal_size,
        "in_use_by": report.holder or None,
    }


def _show(report: Report) -> None:
    from coordinator.cli.run_tables import clean

    lines = [("journal", str(report.path))]
    if report.facts is not None:
        facts = report.facts
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.records.items())
        lines += [
            ("coordinator", facts.coordinator_id),
            ("made", _local(facts.created_at)),
            ("version", f"{facts.schema_version}, of its records {facts.state_version}"),
            ("records", kinds or "none"),
            ("events", _events(report)),
        ]
    if report.size:
        lines.append(("size", f"{report.size:,} bytes, and {report.wal_size:,} not yet merged"))
    lines.append(("in use by", report.holder or "nobody"))
    for name, text in lines:
        typer.echo(f"{name + ':':13}{clean(text)}")
    for problem in report.problems:
        typer.echo(clean(problem))
    typer.echo("sound" if report.is_sound else "NOT SOUND")


def _events(report: Report) -> str:
    if report.event_ids is None or report.event_times is None:
        return "none"
    (first, last), (since, until) = report.event_ids, report.event_times
    return f"{report.events:,} ({first} to {last}), from {_local(since)} to {_local(until)}"


def _local(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
