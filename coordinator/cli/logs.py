"""``tflease logs``: the end of what a member has printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.cli import connection


def logs(
    run: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    member: Annotated[
        str | None, typer.Argument(help='For instance "worker:1"; without: every member.')
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            "--bytes", min=1, max=1 << 20, help="How much of the end of each log, at most."
        ),
    ] = 16 * 1024,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
) -> None:
    """Print the end of a member's log, read from its executor now.

    Of a member that has ended only the last 8 KiB are left here; its whole log is on its executor,
    where `tflease status RUN` says. The exit code is 1 when the coordinator cannot be reached or
    there is nobody to read the log, 3 when there is no such run.

    Examples:

    * `tflease logs 3fa9 worker:1`
    * `tflease logs 3fa9 --bytes 100000 > all.log`
    """
    from coordinator.core.errors import LogUnavailable
    from coordinator.core.model import MemberId

    with connection.connect(coordinator, token_file) as connected:
        chosen = connection.choose(connected.client.list(), run)
        known = {str(each.id): each.id for each in chosen.members}
        if member is not None and member not in known:
            connection.give_up(
                f"run {chosen.run_id} has no member {member!r}: {', '.join(known)}",
                connection.USAGE,
            )
        wanted: list[MemberId] = [known[member]] if member is not None else list(known.values())
        unread = False
        for each in wanted:
            if len(wanted) > 1:
                typer.echo(f"==> {each} <==")
            try:
                chunk = connected.client.read_log(chosen.run_id, each, max_bytes=size)
            except LogUnavailable as error:
                connection.complain(f"{each}: {error.message}")
                unread = True
                continue
            sys.stdout.buffer.write(_whole_lines(chunk.data[-size:]))
            sys.stdout.buffer.flush()
        if unread:
            raise typer.Exit(connection.FAILED)


def _whole_lines(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"
