"""Where the member can be reached: the port it holds and the address it advertises.

What stands in the way may pass (a port that a leaving member still has, a network that is just
coming up), so it is waited for, within a bound; then the member has to end, and says why.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time

from coordinator.core.model import Endpoint
from executor_agent.addresses import NoSuchAddress, address_in
from executor_agent.attendance import MustStop
from executor_agent.core.agent_config import AgentConfig
from executor_agent.ports import HeldPort, NoFreePort, address_towards, split_address

_PORT_INTERVAL = 0.2
_ROUTE_INTERVAL = 1.0


class HeldPorts:
    """TensorFlow's, and the one that rows come in at where Spark feeds the member."""

    def __init__(self, tensorflow: HeldPort, feed: HeldPort | None = None) -> None:
        self._tensorflow, self._feed = tensorflow, feed

    @property
    def feed_port(self) -> int:
        """0: the member is not fed."""
        return self._feed.port if self._feed is not None else 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """As ``AgentConfig.preferred_ports`` has them."""
        held = (self._tensorflow, self._feed)
        return tuple(each.port for each in held if each is not None)

    def at(self, host: str) -> Endpoint:
        """What the member advertises."""
        return Endpoint(host, self._tensorflow.port, self.feed_port)

    def close(self) -> None:
        self._tensorflow.close()
        if self._feed is not None:
            self._feed.close()


async def hold_ports(config: AgentConfig) -> HeldPorts:
    """Raises MustStop."""
    preferred = (*config.preferred_ports, 0, 0)
    tensorflow = await hold_port(config, preferred[0])
    if config.feed_key is None:
        return HeldPorts(tensorflow)
    try:
        return HeldPorts(tensorflow, await hold_port(config, preferred[1]))
    except BaseException:
        tensorflow.close()
        raise


async def hold_port(config: AgentConfig, preferred: int = 0) -> HeldPort:
    """In a thread, because a range may be large; a member of an earlier attempt or run has as long
    to leave its port as the coordinator has to be there. Raises MustStop."""
    give_up_at = time.monotonic() + config.connect_timeout
    while True:
        try:
            return await asyncio.to_thread(HeldPort, config.ports, preferred)
        except NoFreePort as error:
            if time.monotonic() >= give_up_at:
                raise MustStop(
                    f"{error}: each member needs one of its own for its whole life, two where "
                    "Spark feeds it, and `ss -tan` there shows who has them; give a wider range "
                    "(ports=...)"
                ) from None
        except OSError as error:
            raise MustStop(f"{socket.gethostname()} gives the member no port: {error}") from None
        await asyncio.sleep(_PORT_INTERVAL * random.uniform(0.5, 1.0))


async def own_address(config: AgentConfig) -> str:
    """What the member advertises. Raises MustStop."""
    towards_coordinator = await _address_towards_coordinator(config)
    if config.network is None:
        return towards_coordinator
    try:
        return address_in(config.network, towards_coordinator)
    except NoSuchAddress as error:
        raise MustStop(
            f"{error}: members advertise their address in the network that was asked for "
            "(network=...), and each executor's host must have one"
        ) from None
    except (OSError, ValueError) as error:
        raise MustStop(
            f"cannot tell the address of {socket.gethostname()} in {config.network}: {error}"
        ) from None


async def _address_towards_coordinator(config: AgentConfig) -> str:
    """In a thread, because a name server may take its time."""
    host, port = split_address(config.coordinator)
    give_up_at = time.monotonic() + config.connect_timeout
    while True:
        try:
            return await asyncio.to_thread(address_towards, host, port)
        except OSError as error:
            if time.monotonic() >= give_up_at:
                raise MustStop(_no_way(config.coordinator, host, error)) from None
        await asyncio.sleep(_ROUTE_INTERVAL)


def _no_way(coordinator: str, host: str, error: OSError) -> str:
    here = socket.gethostname()
    if isinstance(error, socket.gaierror):
        return (
            f"{here} cannot resolve {host!r}, the name of the coordinator at {coordinator} "
            f"({error.strerror}): set spark.driver.host to a name or an address that executors know"
        )
    return f"no route from {here} to the coordinator at {coordinator}: {error}"
