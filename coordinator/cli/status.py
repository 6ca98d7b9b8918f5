"""``tflease runs`` and ``tflease status``: what a coordinator's runs do, and what they wait for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli import completion, connection

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.cli.connection import Connection
    from coordinator.core.model import RunView

_LOOK_INTERVAL = 1.0
"""Seconds between two looks at all runs; the coordinator tells of changes of one run only."""


def status(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Its id, or the beginning of it; without: all runs.",
            autocompletion=completion.runs,
        ),
    ] = None,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object; with --watch, one a line for each change."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the run has ended, or Ctrl-C.")
    ] = False,
) -> None:
    """Show one run of a `tflease serve` with its members, and what it waits for; or all runs.

    A run that TFCluster.run has started without a daemon is known to its driver alone: there,
    cluster.status() says the same.

    Exit codes: 0 done; 1 the coordinator cannot be reached, or refuses; 2 the command line or the
    configuration file makes no sense; 3 there is no such run.

    Examples:

    * `tflease status`
    * `tflease status 3fa9 --watch`
    * `tflease status --coordinator grpcs://coordinator.example:7787 --json`
    """
    show(
        run, connection.Place(coordinator, token_file, ca_file, cert_file, key_file), as_json, watch
    )


def show(run: str | None, place: connection.Place, as_json: bool, watch: bool) -> None:
    """One run, or all of them; once, or until Ctrl-C."""
    with connection.connect(place) as connected, suppress(KeyboardInterrupt):
        pictures = _of_all(connected) if run is None else _of_one(connected, run)
        if as_json:
            _print_json(pictures, watch)
        elif watch:
            _show_live(pictures)
        else:
            from rich.console import Console

            Console(highlight=False).print(next(pictures).table())


@dataclass(frozen=True, slots=True)
class _AllRuns:
    address: str
    runs: list[RunView]

    def plain(self) -> dict[str, Any]:
        from coordinator.cli import run_json

        return {"coordinator": self.address, "runs": list(map(run_json.run_summary, self.runs))}

    def table(self) -> RenderableType:
        from coordinator.cli import run_tables

        return run_tables.all_runs(self.runs, time.time())


@dataclass(frozen=True, slots=True)
class _OneRun:
    address: str
    run: RunView

    def plain(self) -> dict[str, Any]:
        from coordinator.cli import run_json

        return {"coordinator": self.address, "run": run_json.run_with_members(self.run)}

    def table(self) -> RenderableType:
        from coordinator.cli import run_tables

        return run_tables.one_run(self.run, time.time())


_Picture = _AllRuns | _OneRun


def _of_all(connected: Connection) -> Iterator[_Picture]:
    """Now, and then as often as is looked."""
    while True:
        yield _AllRuns(connected.address, connected.client.list())
        time.sleep(_LOOK_INTERVAL)


def _of_one(connected: Connection, wanted: str) -> Iterator[_Picture]:
    """Now, and after changes until it has ended."""
    chosen = connection.choose(connected.client.list(), wanted)
    for run in connected.client.watch(chosen.run_id):
        yield _OneRun(connected.address, run)


def _print_json(pictures: Iterator[_Picture], watch: bool) -> None:
    if not watch:
        typer.echo(json.dumps(next(pictures).plain(), indent=2))
        return
    last = ""
    for picture in pictures:
        line = json.dumps(picture.plain())
        if line != last:
            typer.echo(line)
        last = line


def _show_live(pictures: Iterator[_Picture]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not console.is_terminal:
        for picture in pictures:
            console.print(picture.table())
        return
    with Live(console=console, auto_refresh=False) as live:
        for picture in pictures:
            live.update(picture.table(), refresh=True)
