"""What goes wrong in a soak."""

from __future__ import annotations

import os
import random
import signal
import time

from benchmarks.client_process import ClientProcess
from benchmarks.daemon import Daemon

CUT, DELAY, PAUSE, KILL = "connections cut", "delayed", "coordinator stopped", "coordinator killed"

DELAYED = (1.0, 4.0)
"""Every chunk is held back for so long, during so many seconds."""

PAUSED = 5.0
"""Seconds; more than the lateness from which a coordinator calls itself paused."""

DOWN = 2.0
"""Seconds between the coordinator's death and its new start."""

_TIMEOUT = 30.0


class Faults:
    """Injects one after the other."""

    def __init__(self, daemon: Daemon, relay: ClientProcess, chance: random.Random) -> None:
        self._daemon = daemon
        self._relay = relay
        self._chance = chance

    def cut(self) -> None:
        """All connections of members."""
        self._tell({"cut": True})

    def inject(self, *, may_kill: bool) -> tuple[str, bool]:
        """Which one it was, and whether it has cut the members off. Returns when it is over; what
        follows from it is not."""
        name = self._chance.choice((CUT, DELAY, PAUSE, *((KILL, KILL) if may_kill else ())))
        if name is CUT:
            self.cut()
        elif name is DELAY:
            delay, seconds = DELAYED
            self._tell({"delay": delay, "seconds": seconds})
            time.sleep(seconds)
        elif name is PAUSE:
            os.kill(self._daemon.pid, signal.SIGSTOP)
            time.sleep(PAUSED)
            os.kill(self._daemon.pid, signal.SIGCONT)
        else:
            self._daemon.kill()
            time.sleep(DOWN)
            self._daemon.start()
        return name, name in (CUT, KILL)

    def _tell(self, command: dict[str, object]) -> None:
        self._relay.tell(command)
        self._relay.hear(_TIMEOUT)
