"""The standalone coordinator: one process for the runs of many drivers, until it is told to end.

What ``tflease serve`` runs, in the foreground: whoever starts it (systemd, Kubernetes, nohup)
watches it. Runs live in memory: a restart loses them, and their agents, refused by the new process,
stop their members.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coordinator import daemon_state
from coordinator.core.errors import TfleaseError
from coordinator.core.model import VERSION, Endpoint
from coordinator.credentials import create_token_file
from coordinator.daemon_engine import DaemonEngine
from coordinator.daemon_state import DaemonState
from coordinator.limits import raise_descriptor_limit
from coordinator.listeners import who_listens
from coordinator.server import Server
from coordinator.shutdown import Ending, stop_runs

_log = logging.getLogger("tflease.coordinator")

SHUTDOWN_REASON = "the coordinator is being shut down"
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """``port`` 0: any that is free. ``insecure``: beyond loopback, in plaintext."""

    host: str
    port: int
    token_file: Path
    insecure: bool = False


class CannotServe(Exception):
    """The daemon did not start; the message says why, and what to do."""


def serve(config: DaemonConfig) -> int:
    """Returns the process's exit code when it was told to end. Raises CannotServe."""
    if not Endpoint(config.host, config.port).is_loopback and not config.insecure:
        raise CannotServe(
            f"{config.host} can be reached from other machines, and this version speaks plaintext: "
            "on the way anybody could read the token, which commands every run, and the addresses "
            "of the members. Listen on 127.0.0.1 when executors are on this machine alone, or say "
            "--insecure where the network is trusted"
        )
    raise_descriptor_limit()
    return asyncio.run(_serve(config))


async def _serve(config: DaemonConfig) -> int:
    ending = Ending()
    _obey_signals(ending)
    token_is_new = not config.token_file.exists()
    try:
        token = create_token_file(config.token_file)
    except TfleaseError as error:
        raise CannotServe(error.message) from None
    engine = DaemonEngine()
    server = Server(engine, token)
    port = await _listen(server, config)
    with _note(config, port):
        _announce(config, port, token_is_new)
        reason = await ending.wait()
        _log.info("%s: stopping all runs", reason)
        engine.refuse_new_runs()
        await stop_runs(engine, SHUTDOWN_REASON, ending.hurried)
        await server.stop()
    _log.info("ended")
    return 0


def _obey_signals(ending: Ending) -> None:
    """From before it listens: nobody's SIGTERM is lost. A second one takes every grace away."""
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is under nohup
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, ending.insist, f"got {number.name}")


async def _listen(server: Server, config: DaemonConfig) -> int:
    try:
        return await server.start(config.host, config.port)
    except TfleaseError as error:
        who = _holder(config)
        address = Endpoint(config.host, config.port).address
        if who:
            message = f"cannot listen on {address}: {who} listens there already"
        else:
            message = error.message
        raise CannotServe(message) from None


def _holder(config: DaemonConfig) -> str:
    if config.port == 0:
        return ""
    for state in daemon_state.living(config.token_file.parent):
        if state.port == config.port:
            return f"the tflease daemon with pid {state.pid}, there since {state.since},"
    return who_listens(config.port)


@contextmanager
def _note(config: DaemonConfig, port: int) -> Iterator[None]:
    """Leaves word for commands on this machine, as long as it lives."""
    started = daemon_state.start_of(os.getpid())
    state = DaemonState(
        address=Endpoint(_ANY_HOST.get(config.host, config.host), port).address,
        pid=os.getpid(),
        started=-1 if started is None else started,
        boot_id=daemon_state.boot_id(),
        token_file=str(config.token_file),
        version=VERSION,
        since=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    try:
        path = daemon_state.write(state)
    except OSError as error:  # a mounted secret, for instance, is read-only
        _log.warning(
            "no note beside the token file (%s): commands need --coordinator %s",
            error.strerror,
            state.address,
        )
        yield
        return
    try:
        yield
    finally:
        daemon_state.remove(path, state)


def _announce(config: DaemonConfig, port: int, token_is_new: bool) -> None:
    """The one line on standard output, for people and for scripts that wait for it."""
    address = Endpoint(config.host, port).address
    new = ", new" if token_is_new else ""
    with suppress(OSError):  # nobody reads it: no reason not to serve
        print(
            f"tflease {VERSION} listens on {address} (pid {os.getpid()}, token in "
            f"{config.token_file}{new})",
            flush=True,
        )


def log_to_stderr(level: str) -> None:
    """With times, in UTC: several machines are compared by them."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
