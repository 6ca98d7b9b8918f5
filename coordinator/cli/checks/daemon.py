"""The coordinator that the commands would talk to: whether it answers, to whom, and how safely."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordinator.cli import connection, place
from coordinator.cli.checks import Check, failed, note, ok
from coordinator.cli.place import Found, Place
from coordinator.paths import expanded

if TYPE_CHECKING:
    from coordinator.core.model import Endpoint

_TLS_TIMEOUT = 5.0
_SOON = 30  # days

_ROLES = ("submitter", "reader", "owner", "agent")


def coordinator(given: Place) -> Iterator[Check]:
    """None at all is as good as one that answers."""
    try:
        completed, _ = place.complete(given)
        if completed.coordinator is None and not place.daemons_here(completed.token_file):
            yield ok("coordinator", "none configured: TFCluster.run starts one beside each driver")
            return
        found = place.find(given)
    except place.Unusable as error:
        advice = "correct that, or unset it: TFCluster.run needs no coordinator of its own"
        yield failed("coordinator", str(error), advice)
        return
    yield _answer(found)
    yield from _tls(given, found)


def _answer(found: Found) -> Check:
    from coordinator.client import RunClient
    from coordinator.core import errors

    name, role = "coordinator", role_of(found.token)
    client = RunClient(found.address, found.token, found.tls)
    began = time.perf_counter()
    try:
        runs = client.list()
    except errors.PermissionDenied:
        text = f"{found.url} answers and takes the token in {found.token_file}, of role {role}"
        return note(name, f"{text}, which cannot list runs")
    except errors.TfleaseError as error:
        return failed(name, connection.explained(found, error), "start it, or correct its address")
    finally:
        client.close()
    took = (time.perf_counter() - began) * 1000
    return ok(
        name,
        f"{found.url} answers in {took:.0f} ms and takes the token in {found.token_file}, of role "
        f"{role}; {len(runs)} {'run' if len(runs) == 1 else 'runs'} (from {found.how})",
    )


def role_of(token: str) -> str:
    """What a token says of itself; whether that is true, its coordinator says."""
    role, dot, _ = token.partition(".")
    return role if dot and role in _ROLES else "operator"


def _tls(given: Place, found: Found) -> Iterator[Check]:
    from coordinator.core.model import Endpoint

    at = Endpoint(*place.parse_address(found.address))
    if found.tls is None:
        if not at.is_loopback:
            yield note(
                "TLS",
                f"none: on the way to {found.address} others can read the token",
                "start the daemon with --tls-cert and --tls-key, and name it grpcs://",
            )
        return
    try:
        until = _valid_until(given, at, found.tls.server_name or at.host)
    except (OSError, ValueError) as error:
        # The line above says whether gRPC gets through.
        yield note("TLS", f"the certificate could not be looked at: {error}")
        return
    days = int((until - time.time()) // 86400)
    text = f"the certificate is good until {datetime.fromtimestamp(until, UTC):%Y-%m-%d}"
    if days < _SOON:
        yield note("TLS", f"{text}, for {days} days", "make a new one, and restart the daemon")
    else:
        yield ok("TLS", text)


def _valid_until(given: Place, at: Endpoint, name: str) -> float:
    """Unix time. ``name``: of the certificate. Raises OSError, which an SSLError is, and
    ValueError."""
    files, _ = place.complete(given)
    context = ssl.create_default_context(cafile=files.ca_file and expanded(files.ca_file))
    context.set_alpn_protocols(["h2"])
    if files.cert_file is not None:
        key_file = files.key_file and expanded(files.key_file)
        context.load_cert_chain(expanded(files.cert_file), key_file)
    with (
        socket.create_connection((at.host, at.port), _TLS_TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        told = secure.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))
