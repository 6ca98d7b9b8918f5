"""Which coordinator is meant, and what to show it: from flags, environment, the configuration file
and the daemons of this machine, in this order.

Owns the order. Says what is wrong by raising; nothing here prints or ends the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.core.hostport import host_and_port
from coordinator.paths import expanded

if TYPE_CHECKING:
    from coordinator.core.access import ClientTls
    from coordinator.daemon_state import DaemonState

FAILED, USAGE = 1, 2

_FOR_TLS = ("ca_file", "cert_file", "key_file")


class Unusable(Exception):
    """There is nobody to talk to. ``code``: the exit code for it."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """As flags and environment variables say it; None: they do not."""

    coordinator: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Place:
        """From a command's parameters."""
        return cls(**{name: parameters.get(name) for name in cls.__dataclass_fields__})

    def before(self, other: Place) -> Place:
        """This one, completed from another."""
        missing = {
            name: getattr(other, name)
            for name in self.__dataclass_fields__
            if getattr(self, name) is None
        }
        return replace(self, **missing)

    @property
    def names_tls(self) -> str:
        """The first file that is for TLS, as a flag; "" when there is none."""
        given = [name for name in _FOR_TLS if getattr(self, name) is not None]
        return f"--{given[0].replace('_', '-')}" if given else ""


@dataclass(frozen=True, slots=True)
class Found:
    """A coordinator and its credentials, as far as is known before the first call."""

    address: str
    token: str
    token_file: Path
    tls: ClientTls | None = None
    how: str = ""  # where its address comes from

    @property
    def url(self) -> str:
        """With its scheme."""
        return f"{'grpc' if self.tls is None else 'grpcs'}://{self.address}"


def parse_address(text: str) -> tuple[str, int]:
    """ "127.0.0.1:7787", "grpcs://[::1]:7787"; `speaks_tls` tells the schemes apart. Raises
    ValueError with a sentence."""
    scheme, mark, rest = text.rpartition("://")
    if mark and scheme.lower() not in ("grpc", "grpcs"):
        raise ValueError(f"{text}: should be HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT")
    found = host_and_port(rest.removesuffix("/") if mark else rest)
    if found is None:
        raise ValueError(f"{text}: should be HOST:PORT, with an address of version 6 in brackets")
    return found


def speaks_tls(text: str) -> bool:
    """Whether the address asks for TLS."""
    return text.lower().startswith("grpcs://")


def complete(given: Place) -> tuple[Place, str]:
    """With what the configuration file adds; and where the coordinator's address comes from. Raises
    Unusable."""
    from coordinator.cli import config

    try:
        file = config.load()
    except config.ConfigUnusable as error:
        raise Unusable(str(error), USAGE) from None
    more = Place(file.coordinator, file.token_file, file.ca_file, file.cert_file, file.key_file)
    how = "--coordinator" if given.coordinator is not None else str(file.path or "")
    return given.before(more), how


def find(given: Place) -> Found:
    """The coordinator that is meant. Raises Unusable."""
    place, how = complete(given)
    path, server_name = place.token_file, ""
    if place.coordinator is not None:
        address, is_tls = normal(place.coordinator), speaks_tls(place.coordinator)
    else:
        state = the_daemon_here(None, path)
        address, is_tls, server_name = state.address, state.tls, state.server_name
        path, how = path or Path(state.token_file), "the daemon of this machine"
    if not is_tls:
        _refuse_plaintext(given, place, address)
    from coordinator.core import errors
    from coordinator.credentials import default_token_path, read_token

    try:
        token = read_token(path)
        tls = client_tls_of(place, server_name) if is_tls else None
    except errors.TfleaseError as error:
        raise Unusable(error.message) from None
    return Found(address, token, path or default_token_path(), tls, how)


def _refuse_plaintext(given: Place, place: Place, address: str) -> None:
    """Where TLS is meant to be spoken: the token would be on the way for all to read. A
    configuration file's TLS is for its own coordinator, and loopback needs none."""
    from coordinator.core.model import Endpoint

    if given.names_tls:
        raise Unusable(
            f"{given.names_tls} is for TLS: name the coordinator with its scheme, "
            f"--coordinator grpcs://{address}",
            USAGE,
        )
    if not place.names_tls or Endpoint(*parse_address(address)).is_loopback:
        return
    key = place.names_tls.removeprefix("--").replace("-", "_")
    raise Unusable(
        f"the configuration file is for TLS ({key}), and {address} would be told the token in "
        f"plaintext: name it grpcs://{address}, or, when it is to be plaintext, another "
        "configuration file with TFLEASE_CONFIG (/dev/null: none)",
        USAGE,
    )


def client_tls_of(place: Place, server_name: str = "") -> ClientTls:
    """From its files. ``server_name``: the name in the server's certificate, where that is not the
    host that is called. Raises TfleaseError, which names the file."""
    from coordinator.tls import client_tls

    files = client_tls(place.ca_file, place.cert_file, place.key_file)
    return replace(files, server_name=server_name)


def normal(coordinator: str) -> str:
    """ "host:port", as gRPC takes it. Raises Unusable when it is no address."""
    from coordinator.core.model import Endpoint

    try:
        return Endpoint(*parse_address(coordinator)).address
    except ValueError as error:
        raise Unusable(f"--coordinator {error}", USAGE) from None


def daemons_here(token_file: Path | None) -> list[DaemonState]:
    """Those of this machine and this user that have their token where we look for it."""
    from coordinator import daemon_state
    from coordinator.credentials import default_token_path

    path = default_token_path() if token_file is None else expanded(token_file)
    return daemon_state.living(path.absolute().parent)


def the_daemon_here(coordinator: str | None, token_file: Path | None) -> DaemonState:
    """The one that is meant. Raises Unusable when there is none, or more than one."""
    daemons = daemons_here(token_file)
    if coordinator is not None:
        address = normal(coordinator)
        here = ", ".join(state.address for state in daemons)
        same = address.replace("localhost:", "127.0.0.1:")
        daemons = [state for state in daemons if state.address == same]
        if not daemons:
            known = f"; here: {here} (--coordinator and TFLEASE_COORDINATOR choose)" if here else ""
            raise Unusable(f"no daemon of yours listens on {address} on this machine{known}")
    if not daemons:
        raise Unusable(
            "no daemon of yours runs on this machine. Name a coordinator with --coordinator, "
            "TFLEASE_COORDINATOR or a configuration file, or start one: tflease serve"
        )
    if len(daemons) > 1:
        addresses = ", ".join(state.address for state in daemons)
        raise Unusable(f"several daemons run here ({addresses}): choose with --coordinator", USAGE)
    return daemons[0]
