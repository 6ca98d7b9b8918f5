"""Which coordinator a command talks to, with which token, and what it says when it cannot.

Exit codes, the same for all commands that talk to one: 1 it could not be reached, or refused;
2 the command line makes no sense; 3 there is no such run, or no such GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:  # grpc is loaded by the commands that need it, when they do
    from coordinator.client import RunClient
    from coordinator.core.model import RunView
    from coordinator.daemon_state import DaemonState
    from coordinator.gpu_client import GpuClient

FAILED, USAGE, NO_SUCH_RUN = 1, 2, 3
NO_SUCH_GPU = NO_SUCH_RUN

Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="grpc://HOST:PORT",
        envvar="TFLEASE_COORDINATOR",
        help="Of `tflease serve`; without it the one on this machine.",
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


def complain(message: str) -> None:
    """On standard error, as all that is not the answer."""
    typer.echo(f"tflease: {message}", err=True)


def give_up(message: str, code: int = FAILED) -> NoReturn:
    """Says why, and ends the command."""
    complain(message)
    raise typer.Exit(code)


def parse_address(text: str) -> tuple[str, int]:
    """ "127.0.0.1:7787", "grpc://[::1]:7787". Raises ValueError with a sentence."""
    scheme, mark, rest = text.rpartition("://")
    if mark and scheme == "grpcs":
        raise ValueError(f"{text}: this version speaks plaintext, grpc://, only")
    if mark and scheme != "grpc":
        raise ValueError(f"{text}: should be HOST:PORT or grpc://HOST:PORT")
    host, colon, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text}: should be HOST:PORT")
    return host, int(port)


def daemons_here(token_file: Path | None) -> list[DaemonState]:
    """Those of this machine and this user that have their token where we look for it."""
    from coordinator import daemon_state
    from coordinator.credentials import default_token_path

    path = default_token_path() if token_file is None else token_file.expanduser()
    return daemon_state.living(path.absolute().parent)


def the_daemon_here(coordinator: str | None, token_file: Path | None) -> DaemonState:
    """The one that is meant. Ends the command when there is none, or more than one."""
    daemons = daemons_here(token_file)
    if coordinator is not None:
        address = normal(coordinator)
        here = ", ".join(state.address for state in daemons)
        same = address.replace("localhost:", "127.0.0.1:")
        daemons = [state for state in daemons if state.address == same]
        if not daemons:
            known = f"; here: {here} (--coordinator and TFLEASE_COORDINATOR choose)" if here else ""
            give_up(f"no daemon of yours listens on {address} on this machine{known}")
    if not daemons:
        give_up(
            "no daemon of yours runs on this machine. Name a coordinator with --coordinator or "
            "TFLEASE_COORDINATOR, or start one: tflease serve"
        )
    if len(daemons) > 1:
        addresses = ", ".join(state.address for state in daemons)
        give_up(f"several daemons run here ({addresses}): choose with --coordinator", USAGE)
    return daemons[0]


def normal(coordinator: str) -> str:
    """ "host:port", as gRPC takes it. Ends the command when it is no address."""
    from coordinator.core.model import Endpoint

    try:
        return Endpoint(*parse_address(coordinator)).address
    except ValueError as error:
        give_up(f"--coordinator {error}", USAGE)


@dataclass(frozen=True, slots=True)
class Connection:
    """A coordinator that answers to our token, as far as is known before the first call."""

    client: RunClient
    address: str


@dataclass(frozen=True, slots=True)
class _Coordinator:
    address: str
    token: str
    token_file: Path


@contextmanager
def connect(coordinator: str | None, token_file: Path | None) -> Iterator[Connection]:
    """Errors inside end the command with a sentence and its exit code."""
    found = _find(coordinator, token_file)
    from coordinator.client import RunClient

    client = RunClient(found.address, found.token)
    try:
        with _explaining(found):
            yield Connection(client, found.address)
    finally:
        client.close()


@contextmanager
def connect_to_gpus(
    coordinator: str | None, token_file: Path | None
) -> Iterator[tuple[GpuClient, str]]:
    """The same for the book of GPUs: the client, and the coordinator's address."""
    found = _find(coordinator, token_file)
    from coordinator.gpu_client import GpuClient

    client = GpuClient(found.address, found.token)
    try:
        with _explaining(found):
            yield client, found.address
    finally:
        client.close()


def _find(coordinator: str | None, token_file: Path | None) -> _Coordinator:
    if coordinator is not None:
        address, path = normal(coordinator), token_file
    else:
        state = the_daemon_here(None, token_file)
        address, path = state.address, token_file or Path(state.token_file)
    from coordinator.core import errors
    from coordinator.credentials import default_token_path, read_token

    try:
        return _Coordinator(address, read_token(path), path or default_token_path())
    except errors.TfleaseError as error:
        give_up(error.message)


@contextmanager
def _explaining(found: _Coordinator) -> Iterator[None]:
    from coordinator.core import errors

    try:
        yield
    except errors.UnknownRun as error:
        give_up(error.message, NO_SUCH_RUN)
    except errors.UnknownGpu as error:
        give_up(error.message, NO_SUCH_GPU)
    except errors.Unauthenticated:
        give_up(
            f"the coordinator at {found.address} refused the token in {found.token_file}: it has "
            "another one. Copy the token file of its machine here. (The coordinator that "
            "TFCluster.run starts beside a driver keeps its token secret: ask the driver, "
            "cluster.status().)"
        )
    except errors.CoordinatorUnavailable as error:
        give_up(
            f"no coordinator could be reached at {found.address}: does `tflease serve` run there, "
            f"is the port open, is it plain TCP all the way? ({error.message})"
        )
    except errors.TfleaseError as error:
        give_up(f"the coordinator at {found.address} refused: {error.message}")


def choose(runs: Sequence[RunView], wanted: str) -> RunView:
    """By its id or the beginning of it. Ends the command when that fits none, or several."""
    fitting = [run for run in runs if run.run_id.startswith(wanted)] if wanted else []
    exact = [run for run in fitting if run.run_id == wanted]
    if len(fitting) > 1 and not exact:
        ids = ", ".join(run.run_id for run in fitting)
        give_up(f"several runs begin with {wanted}: {ids}", USAGE)
    if not fitting:
        give_up(f"the coordinator knows no run {wanted!r}; see `tflease status`", NO_SUCH_RUN)
    return (exact or fitting)[0]
