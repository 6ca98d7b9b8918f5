"""``tflease serve``: the standalone coordinator, in the foreground."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import connection
from coordinator.logging_setup import LogFormat, log_to_stderr
from coordinator.paths import expanded, has_unknown_home

if TYPE_CHECKING:
    from coordinator.core.access import ServerTls
    from coordinator.limits import Limits

DEFAULT_LISTEN = "127.0.0.1:7787"
"""Not 7077, which is that of Spark's own standalone master."""


class LogLevel(Enum):
    """What goes to standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0: any that is free.")
    ] = DEFAULT_LISTEN,
    token_file: connection.TokenFile = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            envvar="TFLEASE_JOURNAL",
            help="What is decided is kept here. Default: tflease/journal.sqlite in "
            "$XDG_STATE_HOME or ~/.local/state.",
        ),
    ] = None,
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="No journal: all runs end with this process.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Speak TLS with this certificate (and its chain)."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM", help="Whoever calls must have a certificate of this authority, too."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond loopback, in plaintext: for networks you trust."
        ),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve /metrics, /healthz and /readyz there over plain HTTP, to anybody who asks.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For instance runs=500; see docs/limits.md."),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the lines on standard error.")
    ] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="What goes to standard error.")] = (
        LogLevel.INFO
    ),
) -> None:
    """Serve the runs of many drivers from one process, until it is told to end.

    Stays in the foreground, for systemd, Kubernetes or nohup to look after, and prints one line
    when it listens. Whoever calls it needs the token: the file is made when it does not exist, and
    its copies go to the drivers.

    What it decides is in its journal before anybody is told: it may be killed, or ended by
    SIGTERM or Ctrl-C, and started again, and runs go on; their members wait for it as long as
    their fence timeout, 120 s by default. `tflease stop --daemon` stops the runs, too.
    With `--in-memory` SIGTERM and Ctrl-C stop all runs in order; a second one takes the members'
    graces away. It ends with exit code 0.

    Examples:

    * `tflease serve`
    * `tflease serve --listen 0.0.0.0:7787 --tls-cert server.pem --tls-key server.key`
    * `nohup tflease serve 2>>tflease.log &`
    """
    # This process never forks, and its threads are gRPC's own: before grpc is imported.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # we say ourselves why we cannot listen
    from coordinator import daemon
    from coordinator.cli.journal import chosen
    from coordinator.credentials import default_token_path

    try:
        host, port = connection.parse_address(listen)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--listen") from None
    if in_memory and journal is not None:
        raise typer.BadParameter("there is none with --in-memory", param_hint="--journal")
    path = _with_home(token_file or default_token_path(), "--token-file")
    kept = None if in_memory else chosen(journal and _with_home(journal, "--journal"))
    tls = _tls(tls_cert, tls_key, tls_client_ca)
    config = daemon.DaemonConfig(
        host, port, path, insecure, kept, tls, _metrics(metrics), _limits(limit)
    )
    log_to_stderr(log_level.name, log_format)
    try:
        code = daemon.serve(config)
    except daemon.CannotServe as error:
        connection.complain(str(error))
        raise typer.Exit(1) from None
    raise typer.Exit(code)


def _with_home(path: Path, option: str) -> Path:
    """From its root on. Ends the command when that takes a home folder which nobody has: a shell
    would make one of that very name here."""
    found = expanded(path)
    if has_unknown_home(found):
        text = f"there is no home folder for {found}: name the file in full"
        raise typer.BadParameter(text, param_hint=option)
    return found.absolute()


def _limits(given: list[str] | None) -> Limits:
    """Ends the command when one makes no sense."""
    from coordinator.limits import Limits

    try:
        return Limits.parse(given or ())
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--limit") from None


def _metrics(where: str | None) -> tuple[str, int] | None:
    """Ends the command when it is no address."""
    try:
        return None if where is None else connection.parse_address(where)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--metrics") from None


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    """Ends the command when a file is missing or unfit."""
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        text = "TLS needs both, the server's certificate and its private key"
        raise typer.BadParameter(text, param_hint="--tls-cert, --tls-key")
    from coordinator.core.errors import Unauthenticated
    from coordinator.tls import server_tls

    try:
        return server_tls(cert, key, client_ca)
    except Unauthenticated as error:
        connection.give_up(error.message)
