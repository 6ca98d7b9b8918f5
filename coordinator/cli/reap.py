"""``tflease reap``: what members of this machine have left behind, listed and, if asked, ended."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli import connection

if TYPE_CHECKING:  # psutil is loaded by this command alone, when it runs
    from rich.console import RenderableType

    from executor_agent.leftovers import Leftover, Reaped, Survey

_BY = "tflease reap"
_CLAIMS = "claims"  # as in executor_agent.member_directory
_MAX_COMMAND = 200  # characters

_WHAT_YES_DOES = (
    "nothing was changed: with --yes these processes are sent SIGKILL, and the claims are removed "
    "once nobody is left"
)


def reap(
    yes: Annotated[
        bool, typer.Option("--yes", help="End them; without it they are listed.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs to read.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="Only what this run has left: its id, or the beginning.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="TFLEASE_HOME",
            metavar="DIR",
            help="What TFLEASE_HOME is for the executors; default: tflease-UID in the temporary "
            "directory.",
        ),
    ] = None,
) -> None:
    """List the processes of this machine whose members are gone, and with --yes end them.

    The next member that starts on a machine does the same by itself. Looks at the claims in the
    members' directory and at all processes of yours that carry a member's marker. Members whose
    sentinel lives are left alone. Run it as the user that Spark's executors run as: others'
    processes are not looked at.

    The exit code is 0 after a mere list; with --yes 0 when nothing is left, and 1 when something
    has survived SIGKILL; 1 also when the claims cannot be read.

    Examples:

    * `tflease reap`
    * `tflease reap --yes`
    * `tflease reap --run 3fa9 --home /var/lib/tflease --json`
    """
    picture = _look(_claims_directory(home), run)
    plain = [_plain(leftover) for leftover in picture.leftovers]  # while they can be asked
    if not as_json:
        _show(picture)
    done = _end(picture.leftovers, quietly=as_json) if yes else None
    if as_json:
        typer.echo(json.dumps(_as_json(picture, plain, done), indent=2))
    elif picture.leftovers and done is None:
        typer.echo(_WHAT_YES_DOES)
    if done is not None and any(each.swept.left for each in done):
        raise typer.Exit(connection.FAILED)


@dataclass(frozen=True, slots=True)
class _Picture:
    directory: Path
    survey: Survey
    leftovers: list[Leftover]  # of the run that was asked for, those without a claim included
    run: str | None


def _claims_directory(home: Path | None) -> Path:
    """Where to look. Never makes a directory; ends the command when what is there is not ours
    alone: claims in it could name any process."""
    default = Path(tempfile.gettempdir(), f"tflease-{os.geteuid()}")
    path = (home or default).absolute()
    try:
        found = path.lstat()
    except FileNotFoundError:
        return path / _CLAIMS
    except OSError as error:
        connection.give_up(f"{path} cannot be looked at: {error.strerror}")
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(found.st_mode) & 0o077:
        connection.give_up(
            f"{path} is not a directory of uid {os.geteuid()} with mode 0700, as members make it: "
            "run this as the user that Spark's executors run as, or name their TFLEASE_HOME: "
            "--home DIR"
        )
    return path / _CLAIMS


def _look(directory: Path, run: str | None) -> _Picture:
    from executor_agent import leftovers

    try:
        survey = leftovers.survey(directory)
        found = [*survey.leftovers, *leftovers.find_unclaimed(directory)]
    except OSError as error:
        connection.give_up(
            f"the claims in {directory} cannot be read: {error.strerror}. Run this as the user "
            "that Spark's executors run as, or name their TFLEASE_HOME: --home DIR"
        )
    if run is not None:
        found = [each for each in found if each.run_id.startswith(run)]
        runs = sorted({each.run_id for each in found})
        if len(runs) > 1 and run not in runs:
            connection.give_up(
                f"several runs begin with {run}: {', '.join(runs)}", connection.USAGE
            )
        found = [each for each in found if each.run_id == run or run not in runs]
    return _Picture(directory, survey, found, run)


def _end(found: Sequence[Leftover], *, quietly: bool) -> list[Reaped]:
    """One after the other, each said when it is done."""
    from coordinator.cli.run_tables import clean
    from executor_agent import leftovers

    done = []
    for leftover in found:
        reaped = leftovers.reap(leftover, by=_BY)
        done.append(reaped)
        if not quietly:
            typer.echo(clean(leftovers.in_words(reaped)))
            for who in reaped.swept.left:
                typer.echo(
                    f"  {who.pid} is in state {leftovers.kernel_state(who.pid)}: it ends when its "
                    "system call returns or it is thawed; until then its claim stays"
                )
    return done


# For programs.


def _as_json(
    picture: _Picture, plain: list[dict[str, Any]], done: list[Reaped] | None
) -> dict[str, Any]:
    survey = picture.survey
    for leftover, reaped in zip(plain, done or (), strict=False):
        swept = reaped.swept
        leftover["killed"] = [who.pid for who in swept.killed]
        leftover["survived"] = [who.pid for who in swept.left]
        leftover["seconds"] = round(swept.seconds, 3)
    return {
        "directory": str(picture.directory),
        "changed": done is not None,
        "leftovers": plain,
        "living": survey.living,
        "elsewhere": survey.elsewhere,
        "broken_claims": list(map(str, survey.broken)),
    }


def _plain(leftover: Leftover) -> dict[str, Any]:
    from executor_agent import leftovers

    return {
        "run": leftover.run_id,
        "member": leftover.member,
        "marker": leftover.marker,
        "why": leftover.why,
        "started_at": None if leftover.since is None else _iso(leftover.since),
        "processes": [
            {
                "pid": found.identity.pid,
                "command": leftovers.command_of(found.identity.pid),
                "started_at": _iso(leftovers.started_at(found.identity)),
                "evidence": found.evidence,
            }
            for found in leftover.processes
        ],
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


# For people.


def _show(picture: _Picture) -> None:
    from rich.console import Console

    from coordinator.cli.run_tables import clean

    console = Console(highlight=False, markup=False)
    uid = os.geteuid()
    console.print(
        f"looked at {picture.directory} and at the processes of uid {uid}", soft_wrap=True
    )
    if not picture.directory.exists():
        text = "there are no claims: no member has ever run with this directory, or it was removed"
        console.print(f"{text}; another one: --home DIR", soft_wrap=True)
    for path in picture.survey.broken:
        console.print(f"note: {path} is no claim that can be understood; left as it is")
    for leftover in picture.leftovers:
        console.print()
        console.print(clean(_heading(leftover)), soft_wrap=True)
        console.print(_table(leftover))
    console.print()
    console.print(_sum_up(picture), soft_wrap=True)


def _heading(leftover: Leftover) -> str:
    from coordinator.cli.run_tables import age

    since = "" if leftover.since is None else f", started {age(time.time() - leftover.since)} ago"
    return f"{leftover.member or 'member'} of run {leftover.run_id}{since}: {leftover.why}"


def _table(leftover: Leftover) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from coordinator.cli.run_tables import age, clean
    from executor_agent import leftovers

    if not leftover.processes:
        return Text("  nobody is left but its claim")
    table = Table(box=None)
    for heading in ("PID", "AGE", "EVIDENCE"):
        table.add_column(heading, no_wrap=True)
    table.add_column("COMMAND", overflow="fold")
    for found in leftover.processes:
        who = found.identity
        command = clean(leftovers.command_of(who.pid))[:_MAX_COMMAND]
        since = age(time.time() - leftovers.started_at(who))
        table.add_row(str(who.pid), since, found.evidence, Text(command))
    return table


def _sum_up(picture: _Picture) -> str:
    survey = picture.survey
    of_run = f" of run {picture.run}" if picture.run is not None else ""
    processes = sum(len(each.processes) for each in picture.leftovers)
    text = f"{_count(processes, 'process', 'processes')}{of_run} left behind by "
    text += _count(len(picture.leftovers), "member", "members")
    if survey.living:
        text += (
            f"; {_count(survey.living, 'member lives and is', 'members live and are')} left alone"
        )
    if survey.elsewhere:
        text += (
            f"; {_count(survey.elsewhere, 'claim is', 'claims are')} of other hosts or containers: "
            "look there"
        )
    return text


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
