"""``tflease``, the command line: one module a command, put together here.

Starting it loads neither tensorflow nor pyspark nor grpc: a command that needs one of them
imports it inside its function.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from coordinator.cli import (
    doctor,
    events,
    journal,
    leases,
    logs,
    reap,
    runs,
    serve,
    status,
    stop,
    token,
    version,
)

app = typer.Typer(
    name="tflease",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraphs
    pretty_exceptions_show_locals=False,  # locals may hold tokens
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version.show()
        raise typer.Exit


@app.callback()
def tflease(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="The same as `tflease version`.",
        ),
    ] = False,
) -> None:
    """Distributed TensorFlow on the Spark cluster you already have.

    Runs are started from Python, by coordinator.TFCluster.run. When the first one does not
    start, ask `tflease doctor`. The runs of a daemon, `tflease serve`, can be looked at and
    stopped from here.
    """


app.command("version")(version.version)
app.command("doctor")(doctor.doctor)
app.command("serve")(serve.serve)
app.command("runs")(runs.runs)
app.command("status")(status.status)
app.command("stop")(stop.stop)
app.command("logs")(logs.logs)
app.add_typer(leases.leases, name="leases")
app.command("events")(events.events)
app.command("token")(token.token)
app.add_typer(journal.journal, name="journal")
app.command("reap")(reap.reap)


def main() -> None:
    """The console script."""
    # Before grpc is imported: we say ourselves what has failed.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text in its encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
