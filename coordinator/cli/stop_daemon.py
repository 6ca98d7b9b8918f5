"""``tflease stop --daemon``: its runs first, and then exactly this process.

SIGTERM alone lets the runs of a daemon with a journal go on, for the next one to take up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coordinator.cli import connection
from coordinator.cli import place as places
from coordinator.cli.stop import print_json, wait_for

if TYPE_CHECKING:
    from coordinator.client import RunClient
    from coordinator.core.model import RunId, RunView
    from coordinator.daemon_state import DaemonState

REASON = "tflease stop --daemon"
END_TIMEOUT = 20.0
"""Seconds for a daemon whose runs have ended."""


def stop_daemon(place: connection.Place, *, wait: bool, as_json: bool) -> None:
    """Returns when it is gone, unless nobody is to wait."""
    from coordinator import daemon_state
    from coordinator.core.errors import TfleaseError

    state = connection.the_daemon_here(place)
    stopped: dict[RunId, RunView] = {}
    try:
        with _client_of(state, place) as client:
            stopped = _stop_runs(client, wait=wait, quietly=as_json)
    except (TfleaseError, places.Unusable) as error:
        if state.is_alive:
            connection.give_up(_why_nothing_ends(state, error))
    done = "was told to end"
    try:
        pidfd = daemon_state.terminate(state)
    except ProcessLookupError:
        pidfd, wait, done = None, False, "has ended already"
    except PermissionError:
        connection.give_up(
            f"the daemon at {state.address} (pid {state.pid}) belongs to another user"
        )
    try:
        if not as_json:
            runs = f", after its {len(stopped)} runs" if stopped else ""
            typer.echo(f"the daemon at {state.address} (pid {state.pid}) {done}{runs}")
        if wait:
            _wait_for_daemon(state, pidfd)
            if not as_json:
                typer.echo("it has ended")
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if as_json:
        head = {"coordinator": state.address, "pid": state.pid, "ended": not state.is_alive}
        print_json(head, stopped.values())


def _stop_runs(client: RunClient, *, wait: bool, quietly: bool) -> dict[RunId, RunView]:
    """All that there are, also those that come meanwhile."""
    stopped: dict[RunId, RunView] = {}
    while alive := [run for run in client.list() if not run.phase.is_terminal]:
        stopping = {run.run_id: client.stop(run.run_id, REASON) for run in alive}
        if wait:
            wait_for(client, stopping, None, quietly=quietly)
        stopped |= stopping
        if not wait:
            break
    return stopped


def _why_nothing_ends(state: DaemonState, error: Exception) -> str:
    """SIGTERM alone would leave its runs to themselves, and look as if they had been stopped."""
    tls = ""
    if state.tls:
        tls = " (it speaks TLS: --ca-file, and --cert-file with --key-file where it asks for them)"
    return (
        f"the daemon at {state.address} (pid {state.pid}) was not told to end, because its runs "
        f"could not all be stopped: {error}{tls}. To end it alone: kill {state.pid}; with a "
        "journal its runs then go on, for the next daemon to take up"
    )


@contextmanager
def _client_of(state: DaemonState, place: connection.Place) -> Iterator[RunClient]:
    from coordinator.client import RunClient
    from coordinator.credentials import read_token

    completed, _ = places.complete(place)
    tls = places.client_tls_of(completed, state.server_name) if state.tls else None
    client = RunClient(state.address, read_token(Path(state.token_file)), tls)
    try:
        yield client
    finally:
        client.close()


def _wait_for_daemon(state: DaemonState, pidfd: int | None) -> None:
    from coordinator import daemon_state

    deadline = time.monotonic() + END_TIMEOUT
    while not daemon_state.wait_gone(state, pidfd, 1.0):
        if time.monotonic() >= deadline:
            connection.give_up(
                f"the daemon (pid {state.pid}) has not ended within {END_TIMEOUT:.0f} s; its log "
                f"says why, and a second SIGTERM hurries it: kill {state.pid}"
            )
