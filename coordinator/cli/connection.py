"""The options of the commands that talk to a coordinator, and what they say when they cannot.

Exit codes, the same for all of them: 1 it could not be reached, or refused; 2 the command line or
the configuration file makes no sense; 3 there is no such run, or no such GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from coordinator.cli import place
from coordinator.cli.place import FAILED, USAGE, Found, Place, parse_address

if TYPE_CHECKING:  # grpc is loaded by the commands that need it, when they do
    from coordinator.client import RunClient
    from coordinator.core.model import RunView
    from coordinator.daemon_state import DaemonState
    from coordinator.gpu_client import GpuClient

__all__ = ["FAILED", "USAGE", "Place", "parse_address"]

NO_SUCH_RUN = 3
NO_SUCH_GPU = NO_SUCH_RUN

Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="grpc[s]://HOST:PORT",
        envvar="TFLEASE_COORDINATOR",
        help="Of `tflease serve`; without it that of the configuration file, or the one on this "
        "machine.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="PATH",
        envvar="TFLEASE_TOKEN_FILE",
        help="Default: tflease/token in $XDG_CONFIG_HOME or ~/.config.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="PEM",
        envvar="TFLEASE_CA_FILE",
        help="Whose certificates to trust, with grpcs://; default: those that the system trusts.",
    ),
]
CertFile = Annotated[
    Path | None,
    typer.Option(
        "--cert-file",
        metavar="PEM",
        envvar="TFLEASE_CERT_FILE",
        help="Our own certificate, for a coordinator that asks for one.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="PEM", envvar="TFLEASE_KEY_FILE", help="Its private key."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs to read.")]


def checked_text(text: str | None) -> str | None:
    """For an option whose text goes to the coordinator, as its callback: bytes that are no UTF-8
    can be on a command line, and in no message."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("is no text in UTF-8") from None
    return text


def complain(message: str) -> None:
    """On standard error, as all that is not the answer."""
    typer.echo(f"tflease: {message}", err=True)


def give_up(message: str, code: int = FAILED) -> NoReturn:
    """Says why, and ends the command."""
    complain(message)
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class Connection:
    """A coordinator that answers to our token, as far as is known before the first call."""

    client: RunClient
    address: str


@contextmanager
def connect(given: Place) -> Iterator[Connection]:
    """Errors inside end the command with a sentence and its exit code."""
    found = _find(given)
    from coordinator.client import RunClient

    client = RunClient(found.address, found.token, found.tls)
    try:
        with _explaining(found):
            yield Connection(client, found.address)
    finally:
        client.close()


@contextmanager
def connect_to_gpus(given: Place) -> Iterator[tuple[GpuClient, str]]:
    """The same for the book of GPUs: the client, and the coordinator's address."""
    found = _find(given)
    from coordinator.gpu_client import GpuClient

    client = GpuClient(found.address, found.token, found.tls)
    try:
        with _explaining(found):
            yield client, found.address
    finally:
        client.close()


def the_daemon_here(given: Place) -> DaemonState:
    """The daemon of this machine that is meant; ends the command when there is none."""
    try:
        completed, _ = place.complete(given)
        return place.the_daemon_here(completed.coordinator, completed.token_file)
    except place.Unusable as error:
        give_up(str(error), error.code)


def _find(given: Place) -> Found:
    try:
        return place.find(given)
    except place.Unusable as error:
        give_up(str(error), error.code)


@contextmanager
def _explaining(found: Found) -> Iterator[None]:
    from coordinator.core import errors

    try:
        yield
    except errors.UnknownRun as error:
        give_up(error.message, NO_SUCH_RUN)
    except errors.UnknownGpu as error:
        give_up(error.message, NO_SUCH_GPU)
    except errors.TfleaseError as error:
        give_up(explained(found, error))


def explained(found: Found, error: Exception) -> str:
    """What an error of this coordinator means, and what to look at."""
    from coordinator.core import errors

    if isinstance(error, errors.Unauthenticated):
        return (
            f"the coordinator at {found.address} refused the token in {found.token_file}: it has "
            "another one. Copy the token file of its machine here. (The coordinator that "
            "TFCluster.run starts beside a driver keeps its token secret: ask the driver, "
            "cluster.status().)"
        )
    if isinstance(error, errors.CoordinatorUnavailable):
        tls = (
            "has it been started with --tls-cert, with a certificate for this name of an authority "
            "that we trust (--ca-file)"
            if found.tls is not None
            else "does it speak TLS (then name it grpcs://)"
        )
        return (
            f"no coordinator could be reached at {found.address}: does `tflease serve` run there, "
            f"is the port open, is it TCP all the way, {tls}? ({error})"
        )
    return f"the coordinator at {found.address} refused: {error}"


def choose(runs: Sequence[RunView], wanted: str) -> RunView:
    """By its id or the beginning of it. Ends the command when that fits none, or several."""
    fitting = [run for run in runs if run.run_id.startswith(wanted)] if wanted else []
    exact = [run for run in fitting if run.run_id == wanted]
    if len(fitting) > 1 and not exact:
        ids = ", ".join(run.run_id for run in fitting)
        give_up(f"several runs begin with {wanted}: {ids}", USAGE)
    if not fitting:
        give_up(f"the coordinator knows no run {wanted!r}; see `tflease runs`", NO_SUCH_RUN)
    return (exact or fitting)[0]
