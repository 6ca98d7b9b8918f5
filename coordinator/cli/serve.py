"""``tflease serve``: the standalone coordinator, in the foreground."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from coordinator.cli import connection

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
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond loopback, in plaintext: for networks you trust."
        ),
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What goes to standard error.")] = (
        LogLevel.INFO
    ),
) -> None:
    """Serve the runs of many drivers from one process, until it is told to end.

    Stays in the foreground, for systemd, Kubernetes or nohup to look after, and prints one line
    when it listens. Whoever calls it needs the token: the file is made when it does not exist, and
    its copies go to the drivers.

    SIGTERM and Ctrl-C stop all runs in order, and then it ends with exit code 0; a second one
    takes the members' graces away. Runs live in memory in this version: a restart loses them, and
    their members are stopped.

    Examples:

    * `tflease serve`
    * `tflease serve --listen 0.0.0.0:7787 --insecure`
    * `nohup tflease serve 2>>tflease.log &`
    """
    # This process never forks, and its threads are gRPC's own: before grpc is imported.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # we say ourselves why we cannot listen
    from coordinator import daemon
    from coordinator.credentials import default_token_path

    try:
        host, port = connection.parse_address(listen)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--listen") from None
    path = token_file.expanduser() if token_file is not None else default_token_path()
    config = daemon.DaemonConfig(host, port, path.absolute(), insecure)
    daemon.log_to_stderr(log_level.name)
    try:
        code = daemon.serve(config)
    except daemon.CannotServe as error:
        connection.complain(str(error))
        raise typer.Exit(1) from None
    raise typer.Exit(code)
