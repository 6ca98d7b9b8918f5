"""``tflease stop``: end runs, or the daemon of this machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import connection

if TYPE_CHECKING:
    from coordinator.client import RunClient
    from coordinator.core.model import RunId, RunView
    from coordinator.daemon_state import DaemonState

_LOOK_INTERVAL = 0.3
_MARGIN = 10.0
"""Seconds beyond what the stages of a stop may take: a daemon also closes its sessions."""


def stop(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids, or the beginnings of them.")
    ] = None,
    every_run: Annotated[bool, typer.Option("--all", help="Every run that there is.")] = False,
    daemon: Annotated[
        bool,
        typer.Option("--daemon", help="The daemon of this machine itself, after all its runs."),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="What members, drivers and logs are told.")
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
) -> None:
    """Stop runs of a `tflease serve`, in order, and wait until they have ended.

    Says what it waits for. Stopping what is stopping already can only hurry it. The exit code is
    1 when the coordinator cannot be reached or a run does not end in time, 3 when there is no
    such run; then nothing is stopped.

    Examples:

    * `tflease stop 3fa9`
    * `tflease stop --all --grace 0`
    * `tflease stop --daemon`
    """
    if bool(runs) + every_run + daemon != 1:
        connection.give_up("name runs, or --all, or --daemon: one of them", connection.USAGE)
    if daemon:
        if grace is not None or reason is not None:
            text = "--daemon knows no --grace or --reason; first: tflease stop --all --grace ..."
            connection.give_up(text, connection.USAGE)
        _stop_daemon(connection.the_daemon_here(coordinator, token_file), wait)
        return
    with connection.connect(coordinator, token_file) as connected:
        client = connected.client
        known = client.list()
        if every_run:
            wanted = [run for run in known if not run.phase.is_terminal]
        else:
            wanted = [connection.choose(known, each) for each in runs or ()]
        stopping = {
            run.run_id: client.stop(run.run_id, reason or "tflease stop", grace) for run in wanted
        }
        if not stopping:
            typer.echo("no run to stop")
        if wait:
            _wait(client, stopping, grace)
        else:
            for run_id in stopping:
                typer.echo(f"{run_id}: told to stop")


def _wait(client: RunClient, stopping: dict[RunId, RunView], grace: float | None) -> None:
    """Until all have ended. Ends the command when they do not in time."""
    from coordinator.core.errors import UnknownRun

    deadline = time.monotonic() + max((_bound(run, grace) for run in stopping.values()), default=0)
    said = _Sayings()
    left = dict(stopping)
    while left:
        for run_id in tuple(left):
            try:
                left[run_id] = client.get(run_id)
            except UnknownRun:  # it had ended, and many others have come since
                del left[run_id]
                continue
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


def _stop_daemon(state: DaemonState, wait: bool) -> None:
    """SIGTERM to exactly this process; returns when it is gone."""
    from coordinator import daemon_state

    alive = _alive_runs(state)
    bound = max((_bound(run, None) for run in alive), default=_MARGIN)
    try:
        pidfd = daemon_state.terminate(state)
    except ProcessLookupError:
        typer.echo(f"the daemon at {state.address} has ended already")
        return
    except PermissionError:
        connection.give_up(
            f"the daemon at {state.address} (pid {state.pid}) belongs to another user"
        )
    try:
        runs = f", after its {len(alive)} runs" if alive else ""
        typer.echo(f"the daemon at {state.address} (pid {state.pid}) was told to end{runs}")
        if wait:
            _wait_for_daemon(state, pidfd, bound)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _wait_for_daemon(state: DaemonState, pidfd: int | None, bound: float) -> None:
    from coordinator import daemon_state

    deadline = time.monotonic() + bound
    said = _Sayings()
    while not daemon_state.wait_gone(state, pidfd, 1.0):
        for run in _alive_runs(state):
            said.say(run)
        if time.monotonic() >= deadline:
            connection.give_up(
                f"the daemon (pid {state.pid}) has not ended within {bound:.0f} s; its log says "
                f"why, and a second SIGTERM hurries it: kill {state.pid}"
            )
    typer.echo("it has ended")


def _alive_runs(state: DaemonState) -> list[RunView]:
    """Empty when it does not answer: a daemon that hangs can be told to end all the same."""
    from coordinator.client import RunClient
    from coordinator.core.errors import TfleaseError
    from coordinator.credentials import read_token

    with suppress(TfleaseError):
        client = RunClient(state.address, read_token(Path(state.token_file)))
        try:
            return [run for run in client.list() if not run.phase.is_terminal]
        finally:
            client.close()
    return []
