"""Starts `executor_agent.agent` with the descriptors it expects, and plays its sentinel and its
member's process to it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.core.model import RunId
from executor_agent import framing
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.supervision import (
    AGENT_CHANNEL_FD,
    AGENT_CONFIG_FD,
    AGENT_CONTROL_FD,
    MARKER_VARIABLE,
    MEMBER_EXITED,
    MEMBER_LOG,
    ExitFacts,
)
from executor_agent.linux import anonymous_file

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0

EXITED = ExitFacts(
    member="worker:0",
    run_id="run",
    incarnation="attempt-1",
    pid=4711,
    exit_code=0,
    signal=None,
    killed_by_us=False,
    reason=MEMBER_EXITED,
    survivors=(),
    proof="sweep",
    max_rss_bytes=1,
    user_seconds=0.0,
    system_seconds=0.0,
    stop_seconds=0.0,
    ended_at=1.0,
)


def _high(descriptor: int) -> int:
    """A copy above those that the agent expects, so that placing one overwrites no other."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)


class AgentProcess:
    """One agent. ``start`` it, and ``close`` leaves no process behind."""

    def __init__(self, directory: Path, coordinator: str, token: str, run_id: RunId) -> None:
        self.run_id = run_id
        self.config = AgentConfig(
            coordinator=coordinator,
            token=token,
            run_id=run_id,
            member="worker:0",
            incarnation="attempt-1",
            marker=f"{run_id}/worker:0/attempt-1",
            executor_id="7",
            directory=str(directory),
            claim=str(directory / "claims" / "attempt-1.json"),
            grace=5.0,
            connect_timeout=20.0,
        )
        self.log = directory / MEMBER_LOG
        self.log.touch()
        self._stderr = directory / "stderr"
        self._decoder = framing.Decoder()
        self._said: list[framing.Message] = []
        self.pid = 0

    def start(self, **changes: Any) -> None:
        self.config = replace(self.config, **changes)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.setblocking(False)
        self.channel.setblocking(False)
        config = anonymous_file("config", self.config.to_json().encode())
        stderr = os.open(self._stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        given = {
            AGENT_CONTROL_FD: control.detach(),
            AGENT_CHANNEL_FD: channel.detach(),
            AGENT_CONFIG_FD: config,
        }
        high = {number: _high(descriptor) for number, descriptor in given.items()}
        places = [(os.POSIX_SPAWN_DUP2, source, number) for number, source in high.items()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "executor_agent.agent"],
            {**environment, MARKER_VARIABLE: self.config.marker},
            file_actions=[(os.POSIX_SPAWN_DUP2, stderr, 2), *places],
            setsid=True,
        )
        for descriptor in (stderr, *given.values(), *high.values()):
            os.close(descriptor)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for end in (self.control, self.channel):
            end.close()

    async def exit_code(self) -> int:
        """Waits for the end of the agent."""
        async with asyncio.timeout(DEADLINE):
            _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    # -- the sentinel ----------------------------------------------------------------------

    async def asked(self) -> dict[str, Any] | None:
        """The agent's next command to the sentinel; None when it has left."""
        async with asyncio.timeout(DEADLINE):
            datagram = await asyncio.get_running_loop().sock_recv(self.control, 65536)
        message: dict[str, Any] | None = json.loads(datagram) if datagram else None
        return message

    def tell(self, message: dict[str, Any]) -> None:
        self.control.send(json.dumps(message).encode())

    def tell_exited(self, **facts: Any) -> None:
        self.tell({"event": "exited", **EXITED.replace(**facts).to_dict()})

    # -- the member's process --------------------------------------------------------------

    async def told(self) -> framing.Message:
        """The agent's next message to the member's process."""
        loop = asyncio.get_running_loop()
        while not self._said:
            async with asyncio.timeout(DEADLINE):
                data = await loop.sock_recv(self.channel, 65536)
            assert data, "the agent has left"
            self._said += self._decoder.feed(data)
        return self._said.pop(0)

    async def say(self, **message: Any) -> None:
        await self.say_raw(framing.encode(message))

    async def say_raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()
