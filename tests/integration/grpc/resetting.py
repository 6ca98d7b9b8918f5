"""A process that opens calls and takes them back, as fast as it can, until it is killed."""

from __future__ import annotations

import asyncio

from coordinator.testing.hostile import HostilePeer

LIST = "/coordinator.v1.RunService/ListRuns"
SAID_AFTER = 5_000


async def reset_for_ever(address: str, token: str) -> None:
    count = 0
    while True:
        async with HostilePeer(address, token) as peer:
            peer.begin()
            for number in range(20_000):
                peer.call(2 * number + 1, LIST, ends=True)
                peer.reset(2 * number + 1)
                count += 1
                if count == SAID_AFTER:
                    print("resetting", flush=True)
                if number % 50 == 0:
                    await peer.sent()
                    if peer.is_over:
                        break


def main(address: str, token: str) -> None:
    asyncio.run(reset_for_ever(address, token))
