"""``tflease logs``: the end of what a member has printed."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import completion, connection

if TYPE_CHECKING:
    from coordinator.client import RunClient
    from coordinator.core.log_values import LogChunk
    from coordinator.core.model import MemberId, RunId, RunView

_LOOK_INTERVAL = 0.25
"""Seconds between two looks at a run whose logs are followed."""

_PATIENCE = 60.0
"""Seconds without a coordinator after which they are not followed any more."""


def logs(
    run: Annotated[
        str,
        typer.Argument(help="Its id, or the beginning of it.", autocompletion=completion.runs),
    ],
    member: Annotated[
        str | None,
        typer.Argument(
            help='For instance "worker:1"; without: every member.',
            autocompletion=completion.members,
        ),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            "--bytes", min=1, max=1 << 20, help="How much of the end of each log, at most."
        ),
    ] = 16 * 1024,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on with what comes, until the run has ended, or Ctrl-C."
        ),
    ] = False,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object, once all have been read; logs are text in it."
        ),
    ] = False,
) -> None:
    """Print the end of a member's log, read from its executor now.

    Of a member that has ended only the last 8 KiB are left here; its whole log is on its executor,
    where `tflease status RUN` says. --follow begins with that end, goes on through restarts, and
    says what could not be read: lines that begin with "[tflease]" are not the members'.

    Exit codes: 0 done; 1 the coordinator cannot be reached or refuses, or a log could not be read;
    2 the command line or the configuration file makes no sense, or the run has no such member; 3
    there is no such run.

    Examples:

    * `tflease logs 3fa9 worker:1`
    * `tflease logs 3fa9 --follow`
    * `tflease logs 3fa9 --bytes 100000 > all.log`
    * `tflease logs 3fa9 --json`
    """
    if follow and as_json:
        connection.give_up("--follow prints lines: leave out --json", connection.USAGE)
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    with connection.connect(place) as connected:
        chosen = connection.choose(connected.client.list(), run)
        known = {str(each.id): each.id for each in chosen.members}
        if member is not None and member not in known:
            connection.give_up(
                f"run {chosen.run_id} has no member {member!r}: {', '.join(known)}",
                connection.USAGE,
            )
        if follow:
            _follow(connected.client, chosen, member, size)
            return
        wanted = [known[member]] if member is not None else list(known.values())
        found: list[_Log] = []
        for each in wanted:
            found.append(_read(connected.client, chosen.run_id, each, size))
            if not as_json:
                _show(found[-1], with_heading=len(wanted) > 1)
        if as_json:
            plain = {"coordinator": connected.address, "run": chosen.run_id}
            typer.echo(json.dumps({**plain, "logs": [log.plain() for log in found]}, indent=2))
        if any(log.problem for log in found):
            raise typer.Exit(connection.FAILED)


def _follow(client: RunClient, run: RunView, member: str | None, size: int) -> None:
    from coordinator.log_following import follow

    followed = _Followed(client, run)
    with suppress(KeyboardInterrupt):
        for line in follow(followed, member, last_bytes=size):
            typer.echo(line)
    if followed.lost():
        raise typer.Exit(connection.FAILED)


class _Followed:
    """A run that is looked at again and again. A ``log_following.LogSource``."""

    def __init__(self, client: RunClient, run: RunView) -> None:
        self._client = client
        self._run = run
        self._seen_at = time.monotonic()
        self._due_at = self._seen_at + _LOOK_INTERVAL

    def view(self) -> RunView:
        """Raises UnknownRun: the coordinator has begun anew, or has forgotten the run."""
        from coordinator.core.errors import CoordinatorUnavailable, LimitExceeded

        if time.monotonic() >= self._due_at:
            with suppress(CoordinatorUnavailable, LimitExceeded):  # until that lasts
                self._run = self._client.get(self._run.run_id)
                self._seen_at = time.monotonic()
            self._due_at = time.monotonic() + _LOOK_INTERVAL
        return self._run

    def read(self, member: MemberId, offset: int | None, max_bytes: int) -> LogChunk:
        return self._client.read_log(self._run.run_id, member, offset, max_bytes)

    def lost(self) -> str:
        away = time.monotonic() - self._seen_at
        return f"no answer from its coordinator for {away:.0f} s" if away > _PATIENCE else ""

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, _LOOK_INTERVAL))


@dataclass(frozen=True, slots=True)
class _Log:
    """The end of a member's log, or why there is none."""

    member: str
    data: bytes = b""
    problem: str = ""

    def plain(self) -> dict[str, str | None]:
        return {
            "member": self.member,
            "text": None if self.problem else self.data.decode(errors="replace"),
            "problem": self.problem or None,
        }


def _read(client: RunClient, run_id: RunId, member: MemberId, size: int) -> _Log:
    from coordinator.core.errors import LimitExceeded, LogUnavailable

    try:
        return _Log(str(member), client.read_log(run_id, member, max_bytes=size).data[-size:])
    except (LogUnavailable, LimitExceeded) as error:  # the others' may be had all the same
        return _Log(str(member), problem=error.message)


def _show(log: _Log, *, with_heading: bool) -> None:
    if with_heading:
        typer.echo(f"==> {log.member} <==")
    if log.problem:
        connection.complain(f"{log.member}: {log.problem}")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(_whole_lines(log.data))
    sys.stdout.buffer.flush()


def _whole_lines(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"
