"""Channels of clients and credentials of servers: gRPC's side of TLS."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from coordinator.core.access import ClientTls, ServerTls

Options = Sequence[tuple[str, Any]]

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),  # with http_proxy set gRPC fails even on loopback
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


def channel(address: str, tls: ClientTls | None = None, options: Options = ()) -> grpc.Channel:
    """A synchronous channel; without ``tls`` in plaintext."""
    every = _options(tls, options)
    if tls is None:
        return grpc.insecure_channel(address, options=every)
    return grpc.secure_channel(address, _credentials(tls), options=every)


def aio_channel(
    address: str, tls: ClientTls | None = None, options: Options = ()
) -> grpc.aio.Channel:
    """The same for asyncio."""
    every = _options(tls, options)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=every)
    return grpc.aio.secure_channel(address, _credentials(tls), options=every)


def _options(tls: ClientTls | None, options: Options) -> list[tuple[str, Any]]:
    """Ours, and those of the caller, which count more."""
    every: dict[str, Any] = dict(CHANNEL_OPTIONS)
    if tls is not None and tls.server_name:
        every["grpc.ssl_target_name_override"] = tls.server_name
    every.update(options)
    return list(every.items())


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.encode() or _system_roots(),
        private_key=tls.key.encode() or None,
        certificate_chain=tls.certificate.encode() or None,
    )


_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


def _system_roots() -> bytes | None:
    """The authorities that this machine trusts, those that its administrator has added included:
    gRPC would take a list of its own. $SSL_CERT_FILE names another file, as for other programs;
    None: there is none, and gRPC's list has to do."""
    known = ssl.get_default_verify_paths()
    named = (os.environ.get(known.openssl_cafile_env), known.cafile, *_BUNDLES)
    for name in filter(None, named):
        try:
            return Path(name).read_bytes()
        except OSError:
            continue
    return None


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """With ``client_ca`` set, callers must show a certificate of it."""
    return grpc.ssl_server_credentials(
        [(tls.key.encode(), tls.certificate.encode())],
        root_certificates=tls.client_ca.encode() or None,
        require_client_auth=bool(tls.client_ca),
    )
