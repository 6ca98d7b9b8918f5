"""One process of fake members with a GPU each, that come back whenever their session ends.

They are the package's own fake executors on gRPC's own client, with the pauses of a real agent.
``python -m benchmarks.reattach`` is told whom to play and says, a line each: that all have entered,
and at every ``tell`` what each holds and when its latest session opened. ``drop`` cuts a share of
the connections.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from benchmarks.client_process import Commands, say
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import RunId
from coordinator.limits import raise_descriptor_limit
from coordinator.testing import FakeExecutor, FakeHost

RETRY_MIN, RETRY_MAX = 0.2, 1.0
"""Seconds between two attempts to attend: those of the agent (``executor_agent/attendance.py``)."""

_ATTEMPTS = 10


def gpu_of(run_id: str, member: str) -> str:
    """Each has one that nobody else can have."""
    return f"GPU-{run_id}-{member}"


class Player:
    """One member, for as long as the process lives."""

    def __init__(self, config: Mapping[str, Any], run_id: str, member: str) -> None:
        host = FakeHost(gpu_of(run_id, member))  # all of one name: their endpoints are loopback's
        self.name = f"{run_id}/{member}"
        self.attended_at = 0.0
        self.attended = 0
        self.trouble = ""
        self.is_settled = asyncio.Event()
        self._dropped = asyncio.Event()
        self._executor = FakeExecutor(
            config["address"], config["token"], RunId(run_id), member, host=host
        )

    @property
    def tokens(self) -> dict[str, int]:
        """The leases that it believes to have."""
        return {uuid: token.number for uuid, token in self._executor.gpus.items()}

    async def play(self) -> None:
        """Until it is cancelled; what goes wrong for good is its ``trouble``."""
        try:
            await self._enter()
            await self._keep_attending()
        except Exception as error:
            self.trouble = f"{self.name}: {type(error).__name__}: {error}"
        finally:
            self.is_settled.set()
            await self._executor.close()

    async def _enter(self) -> None:
        executor = self._executor
        await executor.reserve(attempts=_ATTEMPTS)
        await self._attend()
        await executor.ready()
        await executor.started_or_stopped()
        if executor.start is not None:
            await executor.enter()
        self.is_settled.set()

    async def _attend(self) -> None:
        await self._executor.attend()
        self.attended_at = time.monotonic()
        self.attended += 1

    async def _keep_attending(self) -> None:
        while not await self._is_stopped():
            await self._executor.drop()
            self._dropped.clear()
            await self._attend_again()

    async def _attend_again(self) -> None:
        pause = RETRY_MIN
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, RETRY_MAX)
            with suppress(CoordinatorUnavailable):
                return await self._attend()

    async def _is_stopped(self) -> bool:
        """Waits for the end of the session: False, it broke or was dropped."""
        stopped = asyncio.create_task(self._executor.told_to_stop())
        dropped = asyncio.create_task(self._dropped.wait())
        try:
            await asyncio.wait((stopped, dropped), return_when=asyncio.FIRST_COMPLETED)
            with suppress(CoordinatorUnavailable):
                if stopped.done():
                    self.trouble = f"{self.name} was told to stop: {stopped.result().reason}"
                    return True
            return False
        finally:
            for task in (stopped, dropped):
                task.cancel()
            await asyncio.wait((stopped, dropped))

    def drop(self) -> None:
        """The connection is lost."""
        self._dropped.set()


class Company:
    """All players of this process, and the parent's commands."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._players = [Player(config, *who) for who in config["members"]]

    async def play(self, commands: Commands) -> None:
        """Until standard input ends."""
        lives = [asyncio.create_task(player.play()) for player in self._players]
        loop = asyncio.get_running_loop()
        has_news = asyncio.Event()
        loop.add_reader(commands.fileno(), has_news.set)
        try:
            await self._all_entered()
            while not commands.is_over:
                await has_news.wait()
                has_news.clear()
                for command in commands.take() if commands.has_come else ():
                    self._obey(command)
        finally:
            for life in lives:
                life.cancel()
            await asyncio.wait(lives)

    async def _all_entered(self) -> None:
        await asyncio.gather(*(player.is_settled.wait() for player in self._players))
        say({"entered": True, **self._report()})

    def _obey(self, command: Mapping[str, Any]) -> None:
        if "drop" in command:
            chosen = random.sample(self._players, int(len(self._players) * command["drop"]))
            for player in chosen:
                player.drop()
        say(self._report())

    def _report(self) -> dict[str, Any]:
        return {
            "tokens": [token for player in self._players for token in player.tokens.items()],
            "attended_at": [player.attended_at for player in self._players],
            "trouble": [player.trouble for player in self._players if player.trouble],
        }


async def _play(commands: Commands) -> None:
    await Company(commands.first()).play(commands)  # channels belong to the loop they are made in


def main() -> int:
    """The process."""
    raise_descriptor_limit()
    commands = Commands()
    asyncio.run(_play(commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())
