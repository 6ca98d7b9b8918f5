"""``tflease events``: what has happened, as the coordinator recorded it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli import completion, connection, place

if TYPE_CHECKING:
    from coordinator.cli.place import Found
    from coordinator.event_log import EventRecord

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FIRST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_WHOLE_ID = re.compile(r"[0-9a-f]{12}")


def events(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Of this run alone: its id, or the beginning of it.",
            autocompletion=completion.runs,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Not older: 10m, 2h, 1d, or 2026-11-23T13:00 (UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Not younger; written as --since.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help='Of this kind, "run.failed", or of all of its like, "gpu".',
            callback=connection.checked_text,
        ),
    ] = "",
    grep: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="With this text in them, in any case.",
            callback=connection.checked_text,
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option(min=0, help="The latest so many of the past; 0: all.")
    ] = 1000,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what has happened to runs, members and GPUs, the oldest first.

    A `tflease serve` with a journal keeps its events for 30 days, over restarts; one without keeps
    the latest 10,000 for as long as it lives. Times are in UTC.

    Exit codes: 0 done; 1 the coordinator cannot be reached or refuses; 2 the command line or the
    configuration file makes no sense; 3 there is no such run.

    Examples:

    * `tflease events --since 1h`
    * `tflease events 3fa9 --follow`
    * `tflease events --kind gpu --grep 5b2c --json`
    """
    from coordinator.event_client import EventClient
    from coordinator.event_log import EventQuery

    now = time.time()
    begin, end = instant(since, "--since", now), instant(until, "--until", now)
    given = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    with _explaining(given) as found:
        query = EventQuery(_run_id(found, run), begin, end, grep, kind)
        client = EventClient(found.address, found.token, found.tls)
        try:
            for event in client.watch(query, latest=limit, follow=follow):
                typer.echo(json.dumps(_plain(event)) if as_json else _line(event))
        except KeyboardInterrupt:  # how one stops to follow
            raise typer.Exit from None
        finally:
            client.close()


@contextmanager
def _explaining(given: connection.Place) -> Iterator[Found]:
    """Errors inside end the command with a sentence and its exit code."""
    from coordinator.core.errors import InvalidRun, TfleaseError

    try:
        found = place.find(given)
    except place.Unusable as error:
        connection.give_up(str(error), error.code)
    try:
        yield found
    except InvalidRun as error:
        connection.give_up(error.message, connection.USAGE)
    except TfleaseError as error:
        connection.give_up(connection.explained(found, error))


def _run_id(found: Found, wanted: str | None) -> str:
    """A whole id is taken at its word: the coordinator may have forgotten the run, and not what has
    happened to it."""
    if not wanted or _WHOLE_ID.fullmatch(wanted):
        return wanted or ""
    from coordinator.client import RunClient

    client = RunClient(found.address, found.token, found.tls)
    try:
        return connection.choose(client.list(), wanted).run_id
    finally:
        client.close()


def instant(text: str | None, option: str, now: float) -> float | None:
    """Unix seconds. Ends the command when it is no time."""
    if text is None:
        return None
    found = _unix(text.strip(), now)
    if found is None:
        connection.give_up(
            f"{option} {text}: should be a time ago (30s, 10m, 2h, 1d) or a time in UTC "
            "(2026-11-23T13:00)",
            connection.USAGE,
        )
    if not _FIRST <= found <= _LAST:
        text = f"{option} {text}: should be within the years 1 to 9999"
        connection.give_up(text, connection.USAGE)
    return found


def _unix(text: str, now: float) -> float | None:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - float(ago[1]) * _SECONDS[ago[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _line(event: EventRecord) -> str:
    from coordinator.cli.run_json import time_text
    from coordinator.cli.run_tables import clean

    # A sentence about a GPU names it by itself.
    about = f"{event.subject} " if event.subject and not event.kind.startswith("gpu.") else ""
    text = f"{time_text(event.at)}  {event.run_id or '-':12}  {event.kind:18}  {about}{event.text}"
    return clean(text).replace("\n", " ")


def _plain(event: EventRecord) -> dict[str, Any]:
    from coordinator.cli.run_json import time_text

    return {
        "id": event.id,
        "time": time_text(event.at),
        "run": event.run_id or None,
        "subject": event.subject or None,
        "kind": event.kind,
        "text": event.text,
    }
