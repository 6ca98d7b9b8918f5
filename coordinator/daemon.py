"""The standalone coordinator: one process for the runs of many drivers, until it is told to end.

What ``tflease serve`` runs, in the foreground: whoever starts it (systemd, Kubernetes, nohup)
watches it. What it decides is in its journal before anybody is told, so that it may be killed and
started again while runs go on: their members keep running for as long as their fence timeout.
Without a journal runs live in memory, and end with it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coordinator import daemon_state, garbage
from coordinator.core.access import ServerTls
from coordinator.core.durable import STATE_VERSION, BrokenRecord
from coordinator.core.errors import CoordinatorUnavailable, TfleaseError
from coordinator.core.model import VERSION, Endpoint
from coordinator.credentials import create_token_file
from coordinator.daemon_engine import DaemonEngine
from coordinator.daemon_state import DaemonState
from coordinator.journal import Journal, JournalUnusable
from coordinator.limits import Limits, raise_descriptor_limit
from coordinator.listeners import who_listens
from coordinator.metrics_aspect import MetricsAspect
from coordinator.monitoring import Monitoring
from coordinator.server import Server
from coordinator.shutdown import Ending, stop_runs
from coordinator.tls import name_in

_log = logging.getLogger("tflease.coordinator")

SHUTDOWN_REASON = "the coordinator is being shut down"
_BROKEN = 70
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """``port`` 0: any that is free. ``insecure``: beyond loopback, in plaintext. ``journal`` None:
    runs live in memory. ``metrics``: host and port for HTTP; None: it is not served."""

    host: str
    port: int
    token_file: Path
    insecure: bool = False
    journal: Path | None = None
    tls: ServerTls | None = None
    metrics: tuple[str, int] | None = None
    limits: Limits | None = None


class CannotServe(Exception):
    """The daemon did not start; the message says why, and what to do."""


def serve(config: DaemonConfig) -> int:
    """Returns the process's exit code when it was told to end. Raises CannotServe."""
    is_safe = Endpoint(config.host, config.port).is_loopback or config.tls is not None
    if not is_safe and not config.insecure:
        raise CannotServe(
            f"{config.host} can be reached from other machines, and without TLS anybody on the way "
            "could read the token, which commands every run, and the addresses of the members. "
            "Give it a certificate (--tls-cert and --tls-key), listen on 127.0.0.1 when executors "
            "are on this machine alone, or say --insecure where the network is trusted"
        )
    raise_descriptor_limit()
    with ExitStack() as then:
        journal = None
        if config.journal is not None:
            journal = _open_journal(config.journal)
            then.callback(journal.close)
        return asyncio.run(_serve(config, journal))


def _open_journal(path: Path) -> Journal:
    try:
        return Journal.open(path, state_version=STATE_VERSION)
    except JournalUnusable as error:
        raise CannotServe(str(error)) from None


async def _serve(config: DaemonConfig, journal: Journal | None) -> int:
    ending = Ending()
    _obey_signals(ending)
    token_is_new = not config.token_file.exists()
    try:
        token = create_token_file(config.token_file)
    except TfleaseError as error:
        raise CannotServe(error.message) from None
    engine = _engine(journal)
    aspects = [MetricsAspect(engine.tallies)]
    server = Server(engine, token, config.tls, aspects, config.limits)
    monitoring = Monitoring(server, lambda: engine.is_closing)
    try:
        async with garbage.kept_out_of_the_way(), monitoring.running(config.metrics) as url:
            port = await _listen(server, config)
            with _note(config, port):
                _announce(config, port, token_is_new)
                if url:
                    _log.info("metrics and health are served on %s", url)
                reason = await ending.wait()
                engine.refuse_new_runs(reason)
                await monitoring.look()
                await _end_runs(engine, reason, ending)
                await server.stop()
    except CoordinatorUnavailable as error:  # what HTTP was to listen on is taken
        raise CannotServe(error.message) from None
    _log.info("ended")
    return 0


async def _end_runs(engine: DaemonEngine, reason: str, ending: Ending) -> None:
    """Or leaves them alone, where the next daemon knows of them."""
    if engine.journal is None:
        _log.info("%s: stopping all runs", reason)
        await stop_runs(engine, SHUTDOWN_REASON, ending.hurried)
    else:
        _log.info("%s: %s", reason, _left_behind(engine))


def _engine(journal: Journal | None) -> DaemonEngine:
    began_at = time.perf_counter()
    try:
        # Not in order: what is missing in the journal must reach nobody.
        with _collecting_nothing():
            engine = DaemonEngine(journal, give_up=lambda: os._exit(_BROKEN))
    except (BrokenRecord, JournalUnusable) as error:
        raise CannotServe(f"the journal cannot be taken up, and is as it was: {error}") from None
    if journal is not None:
        there = engine.census()
        _log.info(
            "took up %d runs and %d GPUs from %s in %.3f s", sum(there.runs.values()),
            sum(there.gpus.values()), journal.path, time.perf_counter() - began_at,
        )  # fmt: skip
    return engine


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """What is made meanwhile is there to stay: the collector of cycles need not look at it, neither
    now nor before the first answer."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _left_behind(engine: DaemonEngine) -> str:
    """What whoever ends a daemon must know."""
    alive = [view for view in engine.views() if not view.phase.is_terminal]
    if not alive:
        return "no run is left behind"
    shortest = min(view.spec.fence_timeout for view in alive)
    return (
        f"{len(alive)} runs go on; their members wait for this daemon to come back for "
        f"{shortest:g} s, and stop then"
    )


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
        tls=config.tls is not None,
        server_name="" if config.tls is None else name_in(config.tls.certificate),
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
    kept = f"journal in {config.journal}" if config.journal is not None else "runs in memory"
    over = "" if config.tls is None else " with TLS"
    with suppress(OSError):  # nobody reads it: no reason not to serve
        print(
            f"tflease {VERSION} listens on {address}{over} (pid {os.getpid()}, token in "
            f"{config.token_file}{new}, {kept})",
            flush=True,
        )
