"""The agent's side of its sentinel: what it is asked, what it says, and what is done without it.

Owns the control socket. While the sentinel lives it is only asked; one that does not obey is
killed, and one that is gone without a word is swept after.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from executor_agent import claims, leftovers
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.claim import SENTINEL
from executor_agent.core.story import Line
from executor_agent.core.supervision import ExitFacts
from executor_agent.linux import boot_id
from executor_agent.processes import ProcessIdentity, signal_if_same
from executor_agent.sudden_death import SuddenDeath, sweep_after_sudden_death

MAX_REASON = 2000  # characters; the sentinel reads 64 KiB

_OBEDIENCE_TIMEOUT = 14.0
"""Seconds beyond the grace for a sentinel to report the end: more than its own timeouts together
(``term_timeout`` and ``kill_timeout``), less than the coordinator's patience with a stop (20 s)."""

_LOOK_INTERVAL = 5.0  # seconds between two looks at whether it is frozen
_SWEEP_TIMEOUT = 10.0


class SentinelLink:
    """Used inside the agent's event loop alone."""

    def __init__(
        self, control: socket.socket, config: AgentConfig, *, tell: Callable[[Line], None]
    ) -> None:
        """``control``: ours from now on. ``tell``: a line for people; must not block."""
        control.setblocking(False)
        self._control = control
        self._config = config
        self._tell = tell
        self._claim = Path(config.claim)
        self._overdue: asyncio.TimerHandle | None = None
        self._is_hung = False  # we had to kill it
        self.has_swept_all = False

    async def end(self) -> ExitFacts:
        """What the sentinel saw of the end; or, when the sentinel itself is gone, what we see."""
        facts = await self._listen()
        if self._overdue is not None:
            self._overdue.cancel()
        return facts

    async def _listen(self) -> ExitFacts:
        loop = asyncio.get_running_loop()
        while True:
            try:
                datagram = await loop.sock_recv(self._control, 256 * 1024)
            except OSError:
                datagram = b""
            if not datagram:
                return await asyncio.to_thread(self._sweep)
            try:
                message = json.loads(datagram)
                self._retell(message)
                if message.get("event") == "exited":
                    return ExitFacts.from_dict(message)
            except (AttributeError, ValueError) as error:
                self._tell(Line(f"not understood what the sentinel said: {error}"))

    def _retell(self, message: Mapping[str, Any]) -> None:
        # The sentinel keeps its own lines until the end, which a sudden one does not let it see.
        if message.get("event") == "stopping":
            reason, grace = message.get("reason"), message.get("grace")
            told = f"sentinel is stopping, grace {grace} s: {reason}"
            self._tell(Line(told, routine=True))

    def _sweep(self) -> ExitFacts:
        self._tell(Line("sentinel is gone without a word; sweeping what carries the marker"))
        config = self._config
        death = SuddenDeath(
            member=config.member,
            run_id=config.run_id,
            incarnation=config.incarnation,
            marker=config.marker,
            directory=Path(config.directory),
            claim=self._claim,
            exit_code=None,  # the task is told, not we
            hung=self._is_hung,
        )
        tombstone = sweep_after_sudden_death(
            death, agent_timeout=0.0, kill_timeout=_SWEEP_TIMEOUT, by_agent=True
        )
        self.has_swept_all = not tombstone.survivors
        return tombstone

    def ask_to_stop(self, grace: float, reason: str) -> None:
        """To stop the member within that time; a sentinel that does not is killed."""
        self._tell(Line(f"asks for a stop within {grace:g} s: {reason}", routine=True))
        self._send({"command": "stop", "grace": grace, "reason": reason[:MAX_REASON]})
        loop = asyncio.get_running_loop()
        overdue_at = loop.time() + grace + _OBEDIENCE_TIMEOUT
        if self._overdue is not None:
            if self._overdue.when() <= overdue_at:
                return
            self._overdue.cancel()
        self._overdue = loop.call_at(overdue_at, self._end_hung_sentinel)

    def leave(self) -> None:
        """All is reported: we need the sentinel no more."""
        self._send({"command": "done"})

    async def watch(self) -> None:
        """A frozen one sees nobody die, and keeps alive what should have died with its task."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            if leftovers.is_hung(self._claim):
                return self._end_hung_sentinel()

    def _end_hung_sentinel(self) -> None:
        """It has neither obeyed nor said what survives: a frozen one, say. Its end is seen as the
        end of its socket, and then it is we who sweep."""
        claim = claims.read(self._claim)
        if claim is not None and SENTINEL in claim.processes and claim.boot_id == boot_id():
            marker = self._config.marker
            self._tell(Line(f"[{marker}] the sentinel does not stop: killing it"))
            self._is_hung = True
            signal_if_same(ProcessIdentity(*claim.processes[SENTINEL]), signal.SIGKILL)

    def _send(self, command: Mapping[str, Any]) -> None:
        with suppress(OSError):  # gone: the other end of the socket will say so
            self._control.send(json.dumps(command).encode())
