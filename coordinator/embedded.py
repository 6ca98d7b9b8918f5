"""The embedded coordinator: a process of its own beside the driver, gone when the driver is.

``python -m coordinator.embedded`` reads one line of JSON (``EmbeddedConfig``) from standard input,
which stays open as the driver's lifeline, and answers with one line on standard output:
``{"port": ..., "tls": ...}`` or ``{"error": ...}``. The token comes, and the clients' certificate
and key go, through these pipes alone: never in argv, the environment or a file.

The driver may hold the GIL for a minute, fork, or be killed: none of it may cost a heartbeat or
leave a member. When the driver is gone (pidfd, or the end of the lifeline) members are told to
stop, and the process ends when they have, or when the time for it is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields

from coordinator import garbage
from coordinator.authority import new_authority
from coordinator.core.errors import TfleaseError
from coordinator.engine import Engine
from coordinator.limits import raise_descriptor_limit
from coordinator.metrics_aspect import MetricsAspect
from coordinator.monitoring import Monitoring
from coordinator.server import Server
from coordinator.shutdown import Ending, stop_runs

_log = logging.getLogger("tflease.coordinator")

_METRICS = ("127.0.0.1", 0)
"""Numbers over plain HTTP, for whoever is on this machine: any port that is free."""

ENVIRONMENT: Mapping[str, str] = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "NONE"}
"""What its process must find before it imports grpc. It never forks. And grpc would tell of every
stranger's handshake that fails on standard error, which is the driver's terminal."""


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """What the driver tells its coordinator. ``port`` 0: any that is free."""

    token: str = field(repr=False)
    driver_pid: int
    host: str = "127.0.0.1"
    port: int = 0
    log_level: str = "WARNING"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EmbeddedConfig:
        """Raises ValueError."""
        try:
            config = cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"broken configuration: {error}") from None
        for item in fields(cls):
            kind = int if item.name in ("driver_pid", "port") else str
            if type(getattr(config, item.name)) is not kind:
                raise ValueError(f"broken configuration: {item.name} is not {kind.__name__}")
        if not config.token:
            raise ValueError("broken configuration: the token is empty")
        if config.driver_pid <= 0 or not 0 <= config.port < 65536:
            raise ValueError("broken configuration: driver_pid or port is out of range")
        if config.log_level not in logging.getLevelNamesMapping():
            raise ValueError(f"broken configuration: no log level {config.log_level!r}")
        return config


def _watch_driver(pid: int, ending: Ending) -> int | None:
    """Watches the driver; returns the pidfd, None where they are refused: then the lifeline has to
    do. The driver is our parent, so its pid cannot have been reused as long as it still is. Raises
    ProcessLookupError when it is not."""
    loop = asyncio.get_running_loop()
    try:
        pidfd: int | None = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):
        pidfd = None
    if os.getppid() != pid:
        if pidfd is not None:
            os.close(pidfd)
        raise ProcessLookupError
    if pidfd is not None:
        loop.add_reader(pidfd, ending.ask, "the driver process is gone")
    loop.add_reader(0, _lifeline, ending)
    return pidfd


def _lifeline(ending: Ending) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        ending.ask("the driver closed its coordinator")


@asynccontextmanager
async def _watched_over(monitoring: Monitoring) -> AsyncIterator[str]:
    """Gives the URL of the numbers; empty where they cannot be served."""
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(monitoring.running(_METRICS))
        except Exception as error:  # whatever it is: no run fails for the sake of numbers
            _log.warning("%s; going on without", error)
            url = await stack.enter_async_context(monitoring.running())
        yield url


async def _run(config: EmbeddedConfig) -> int:
    ending = Ending()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.ask, f"the coordinator got {number.name}")
    try:
        pidfd = _watch_driver(config.driver_pid, ending)
    except ProcessLookupError:
        _log.error("driver %d is gone, or did not start this process", config.driver_pid)
        return 1
    server_tls, client_tls = new_authority()
    engine = Engine()
    server = Server(engine, config.token, server_tls, [MetricsAspect(engine.tallies)])
    monitoring = Monitoring(server)
    async with garbage.kept_out_of_the_way(), _watched_over(monitoring) as url:
        try:
            port = await server.start(config.host, config.port)
        except TfleaseError as error:
            _answer({"error": error.message})
            return 1
        _answer({"port": port, "tls": client_tls.to_plain(), "metrics": url})
        reason = await ending.wait()
        if pidfd is not None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        await stop_runs(engine, reason)
        await server.stop()
    return 0


def _answer(message: dict[str, object]) -> None:
    """The one line that the driver waits for; nothing else is ever written there."""
    with suppress(BrokenPipeError):  # the driver is gone: its watch ends us
        os.write(1, (json.dumps(message) + "\n").encode())
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _read_config() -> EmbeddedConfig:
    """Byte by byte up to the end of the line: the lifeline must keep what follows."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 1)
        if not chunk:
            raise ValueError("standard input ended before the configuration")
        line += chunk
    return EmbeddedConfig.from_json(line.decode())


def main() -> int:
    """The process. Ignores the terminal's signals: the driver decides, or its end does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        config = _read_config()
    except ValueError as error:
        print(f"coordinator.embedded: {error}; it is started by TFCluster.run", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=config.log_level, format="tflease coordinator: %(levelname)s: %(message)s"
    )
    raise_descriptor_limit()
    return asyncio.run(_run(config))


if __name__ == "__main__":
    sys.exit(main())
