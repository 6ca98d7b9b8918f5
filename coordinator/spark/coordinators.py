"""The coordinator of a run as the driver sees it: a child of its own, or a daemon."""

from __future__ import annotations

import logging
import socket
from typing import Protocol

from coordinator import credentials, tls
from coordinator.core.access import ClientTls
from coordinator.core.model import Endpoint
from coordinator.spark.coordinator_process import CoordinatorProcess
from coordinator.spark.gateway import Gateway
from coordinator.spark.options import Options

_log = logging.getLogger("tflease")


class Coordinator(Protocol):
    """``address``: "host:port" that members are told. ``own_address``: the way from here.
    ``token`` and ``tls`` (None: plaintext): for both. ``patience``: seconds it may be out of reach
    before the run is lost."""

    address: str
    own_address: str
    token: str
    tls: ClientTls | None
    patience: float
    metrics_url: str

    @property
    def name(self) -> str:
        """For messages, with the place where it is when that is not here."""

    def is_gone(self) -> bool:
        """Whether it is certain that it will never answer again."""

    def close(self, timeout: float) -> None:
        """The run is over. Idempotent."""

    def kill(self) -> None:
        """At once, after a failed start."""


class RemoteCoordinator:
    """A daemon: it was there before the run, and stays after it."""

    def __init__(
        self, address: str, token: str, patience: float, tls: ClientTls | None = None
    ) -> None:
        self.address = self.own_address = address
        self.token = token
        self.tls = tls
        self.patience = patience
        self.metrics_url = ""  # its operator knows it

    @property
    def name(self) -> str:
        return f"the coordinator at {'grpc' if self.tls is None else 'grpcs'}://{self.address}"

    def is_gone(self) -> bool:
        """It may always come back."""
        return False

    def close(self, timeout: float) -> None:
        """Nothing to end: the run has been ended by a call."""

    def kill(self) -> None:
        """Neither is there here."""


def coordinator_for(options: Options, gateway: Gateway) -> Coordinator:
    """A new process, or the daemon that was named.

    Raises CoordinatorUnavailable when the process does not come up, Unauthenticated without a
    token for the daemon, or with files for TLS that are of no use.
    """
    if options.daemon is not None:
        token = credentials.read_token(options.token_file)
        _warn_of_loopback(options.daemon, gateway.master)
        # Members stop by themselves when they are cut off for so long; until then nothing is lost.
        patience = options.spec.fence_timeout
        return RemoteCoordinator(options.daemon, token, patience, _tls_of(options))
    driver_host = gateway.driver_host
    host, port = options.bind_address(gateway.master, driver_host)
    told = options.advertised(driver_host or socket.gethostname())
    return CoordinatorProcess(host, port, *told)


def _tls_of(options: Options) -> ClientTls | None:
    """What the driver's files hold; members get the same, in their tasks."""
    if not options.is_secure:
        return None
    return tls.client_tls(options.ca_file, options.cert_file, options.key_file)


def _warn_of_loopback(daemon: str, master: str) -> None:
    """The driver reaches it, and sees its members time out: the one address is for both."""
    host, _, port = daemon.rpartition(":")
    if Endpoint(host.strip("[]"), int(port)).is_loopback and not master.startswith("local"):
        _log.warning(
            "members are told that the coordinator is at %s, which they reach only on this "
            "machine: on a cluster pass an address that executors reach, too", daemon,
        )  # fmt: skip
