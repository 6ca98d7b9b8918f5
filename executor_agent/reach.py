"""Whether other members can be reached, found out before TensorFlow would hang on it (R9).

A TCP connect to the port that a member holds. Nothing listens there yet, so "refused" is the usual
answer, and it is as good as a connection: packets go there and come back. It is also what a peer
that has just ended would send: whether it lives is for the coordinator to know. A firewall that
answers in its place with a reset or a "port unreachable" cannot be told from that and is not found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from executor_agent.core.peers import Peer, Unreached
from executor_agent.ports import split_address

TIMEOUT = 5.0
"""Seconds for all peers together. Three of TCP's own attempts (after 0, 1 and 3 s) fit in."""

_RETRY_INTERVAL = 0.5


async def unreached(peers: Sequence[Peer], timeout: float = TIMEOUT) -> list[Unreached]:
    """Those that could not be reached within ``timeout`` seconds, in the order given."""
    async with asyncio.TaskGroup() as group:
        probes = [group.create_task(_why_not(peer.address, timeout)) for peer in peers]
    found = zip(peers, (probe.result() for probe in probes), strict=True)
    return [Unreached(peer, why) for peer, why in found if why]


async def _why_not(address: str, timeout: float) -> str:
    """ "" for a peer that can be reached."""
    host, port = split_address(address)
    why = f"timed out after {timeout:g} s"
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    await _knock(host, port)
                except (ConnectionRefusedError, ConnectionResetError):
                    return ""
                except OSError as error:  # no route, say: it may come, as in a network just set up
                    why = _words(error)
                else:
                    return ""
                await asyncio.sleep(_RETRY_INTERVAL)
    except TimeoutError:
        return why


async def _knock(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
    transport.abort()


def _words(error: OSError) -> str:
    """Asyncio puts the address, which we name anyway, in the place of the reason."""
    if error.errno is not None and error.errno > 0:  # a resolver's are negative
        return os.strerror(error.errno)
    return error.strerror or str(error)
