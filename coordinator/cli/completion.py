"""What the shell offers on TAB: runs and their members, when a coordinator answers at once.

Says nothing when it does not, whatever the reason: a shell's line is no place for it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import typer

from coordinator.cli import place
from coordinator.cli.place import Place

if TYPE_CHECKING:
    from coordinator.core.model import RunView

TIMEOUT = 1.0
"""Seconds that somebody waits for a TAB, at most."""


def runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids, with name and phase."""
    return [
        (run.run_id, f"{run.spec.name}, {run.phase.value}")
        for run in _list(context)
        if run.run_id.startswith(incomplete)
    ]


def members(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Of the run that is named before."""
    wanted = context.params.get("run") or ""
    fitting = [run for run in _list(context) if wanted and run.run_id.startswith(wanted)]
    if len(fitting) != 1:
        return []
    return [
        (str(member.id), member.phase.value)
        for member in fitting[0].members
        if str(member.id).startswith(incomplete)
    ]


def _list(context: typer.Context) -> list[RunView]:
    """Asked by a thread that nobody waits for any longer than that."""
    answers: list[list[RunView]] = []
    given = Place.of(context.params)

    def ask() -> None:
        from coordinator.core.errors import TfleaseError

        try:
            found = place.find(given)
            from coordinator.client import RunClient

            client = RunClient(found.address, found.token, found.tls)
            try:
                answers.append(client.list())
            finally:
                client.close()
        except (OSError, TfleaseError, place.Unusable):
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answers[0] if answers else []
