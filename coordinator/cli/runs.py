"""``tflease runs``: all runs of a coordinator. What is looked at is in ``status``."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli import connection, status


def runs(
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object; with --watch, one a line for each change."),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show all runs of a `tflease serve`: those that go on, and the last hundred that have ended.

    `tflease status RUN` shows one of them with its members.

    Exit codes: 0 done; 1 the coordinator cannot be reached, or refuses; 2 the command line or the
    configuration file makes no sense.

    Examples:

    * `tflease runs`
    * `tflease runs --watch`
    * `tflease runs --json --coordinator grpcs://coordinator.example:7787 --ca-file ca.pem`
    """
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    status.show(None, place, as_json, watch)
