"""``tflease stop``: end runs, or the daemon of this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli import completion, connection

if TYPE_CHECKING:
    from coordinator.client import RunClient
    from coordinator.core.model import RunId, RunView

_LOOK_INTERVAL = 0.3
_MARGIN = 10.0
"""Seconds beyond what the stages of a stop may take: a daemon also closes its sessions."""


def stop(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Ids, or the beginnings of them.",
            autocompletion=completion.runs,
        ),
    ] = None,
    every_run: Annotated[bool, typer.Option("--all", help="Every run that there is.")] = False,
    daemon: Annotated[
        bool,
        typer.Option("--daemon", help="The daemon of this machine itself, after all its runs."),
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(
            help="What members, drivers and logs are told.", callback=connection.checked_text
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Time that members have to leave; can only shorten that of their roles.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when they have ended, or at once.")
    ] = True,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, once it is done, and nothing before.")
    ] = False,
) -> None:
    """Stop runs of a `tflease serve`, in order, and wait until they have ended.

    Says what it waits for. Stopping what is stopping already can only hurry it. With --daemon all
    runs are stopped, and then the daemon of this machine; with --no-wait as well it ends before
    its runs have. To restart a daemon, and let its runs go on, send it SIGTERM instead.

    Exit codes: 0 done; 1 the coordinator cannot be reached or refuses, or a run or the daemon does
    not end in time; 2 the command line or the configuration file makes no sense; 3 there is no such
    run, and then nothing is stopped.

    Examples:

    * `tflease stop 3fa9`
    * `tflease stop --all --grace 0`
    * `tflease stop --daemon`
    """
    if bool(runs) + every_run + daemon != 1:
        connection.give_up("name runs, or --all, or --daemon: one of them", connection.USAGE)
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    if daemon:
        from coordinator.cli import stop_daemon

        if grace is not None or reason is not None:
            text = "--daemon knows no --grace or --reason; first: tflease stop --all --grace ..."
            connection.give_up(text, connection.USAGE)
        stop_daemon.stop_daemon(place, wait=wait, as_json=as_json)
        return
    with connection.connect(place) as connected:
        client = connected.client
        known = client.list()
        if every_run:
            wanted = [run for run in known if not run.phase.is_terminal]
        else:
            wanted = [connection.choose(known, each) for each in runs or ()]
        stopping = {
            run.run_id: client.stop(run.run_id, reason or "tflease stop", grace) for run in wanted
        }
        if not stopping and not as_json:
            typer.echo("no run to stop")
        if wait:
            wait_for(client, stopping, grace, quietly=as_json)
        elif not as_json:
            for run_id in stopping:
                typer.echo(f"{run_id}: told to stop")
        if as_json:
            print_json({"coordinator": connected.address}, stopping.values())


def print_json(head: dict[str, Any], runs: Iterable[RunView]) -> None:
    """What was stopped, as it stands."""
    from coordinator.cli.run_json import run_summary

    typer.echo(json.dumps({**head, "runs": list(map(run_summary, runs))}, indent=2))


def wait_for(
    client: RunClient, stopping: dict[RunId, RunView], grace: float | None, *, quietly: bool
) -> None:
    """Until all have ended; ``stopping`` is kept up to date. Ends the command when they do not in
    time."""
    from coordinator.core.errors import UnknownRun

    deadline = time.monotonic() + max((_bound(run, grace) for run in stopping.values()), default=0)
    said = _Sayings()
    left = dict(stopping)
    while left:
        for run_id in tuple(left):
            try:
                left[run_id] = stopping[run_id] = client.get(run_id)
            except UnknownRun:  # it had ended, and many others have come since
                del left[run_id]
                continue
            if not quietly:
                said.say(left[run_id])
            if left[run_id].phase.is_terminal:
                del left[run_id]
        if left and time.monotonic() >= deadline:
            connection.give_up(f"not ended in time: {', '.join(left)}; see `tflease status RUN`")
        if left:
            time.sleep(_LOOK_INTERVAL)


class _Sayings:
    """One line for a run whenever there is something new to say of it."""

    def __init__(self) -> None:
        self._last: dict[RunId, str] = {}

    def say(self, run: RunView) -> None:
        from coordinator.cli.run_tables import clean
        from coordinator.core.diagnosis import headline

        text = clean(headline(run, time.time()))
        if self._last.get(run.run_id) != text:
            typer.echo(f"{run.run_id}: {text}")
        self._last[run.run_id] = text


def _bound(run: RunView, grace: float | None) -> float:
    """Seconds after which this run has ended, as its coordinator counts them."""
    from coordinator.core.ending import stop_bound
    from coordinator.core.liveness import STOP_BOUND
    from coordinator.core.model import MemberPhase

    longest = max(run.spec.grace.values())
    bound = stop_bound(longest if grace is None else min(grace, longest)) + _MARGIN
    if any(member.phase is MemberPhase.LOST for member in run.members):
        bound += run.spec.fence_timeout + STOP_BOUND
    return bound
