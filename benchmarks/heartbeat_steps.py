"""One server of beats, its peers in several client processes, and what was measured step by step.

The server has a core of its own; a few peers, the probes, are in a process that does nothing else,
so that what they measure is the server and not the crowd's own way to read an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.client_process import ClientProcess
from benchmarks.latency import percentile

PROBES = 100
CROWDS = 2
"""Client processes beside that of the probes."""

_MODULE = "benchmarks.heartbeat_fleet"
_SETTLE_TIMEOUT = 240.0
_STEP_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """One rhythm. ``rate``: beats that were sent a second, by all. ``took``: of the probes, in
    seconds from the sending to the acknowledgement. ``behind``: beats that had no acknowledgement
    yet when the step ended. ``core``: share of one that the server took. ``lost``: peers that it
    called lost. ``cut_off``: whose connection it has closed, so far."""

    who: str
    peers: int
    interval: float
    rate: float
    took: tuple[float, ...]
    behind: int
    core: float
    lost: int = 0
    cut_off: int = 0

    @property
    def p99(self) -> float:
        return percentile(self.took, 0.99)


@dataclass(frozen=True, slots=True)
class Server:
    """Whose peers these are. ``cpu``: seconds of its life so far."""

    who: str
    cpu: Callable[[], float]


class Fleet:
    """All peers of one server; on leaving the processes are gone. ``shares``: what each process is
    told, the first one being that of the probes; ``peers``: how many there are in all."""

    def __init__(
        self,
        server: Server,
        shares: Sequence[Mapping[str, Any]],
        peers: int,
        cores: Sequence[int],
    ) -> None:
        self._server = server
        self._peers = peers
        self._stack = ExitStack()
        try:
            self._processes = [
                self._stack.enter_context(ClientProcess(_MODULE, share, cores)) for share in shares
            ]
            self._began_at = time.monotonic()
            for process in self._processes:
                process.hear(_SETTLE_TIMEOUT)
            self.settled_in = time.monotonic() - self._began_at
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, interval: float, seconds: float) -> Step:
        """All beat once in ``interval`` for so long. Raises ClientTrouble when one is cut off."""
        for process in self._processes:
            process.tell({"interval": interval, "seconds": seconds})
        timeout = interval + seconds + _STEP_TIMEOUT
        self._hear_all("began", timeout)
        cpu, began_at = self._server.cpu(), time.monotonic()
        self._hear_all("measured", timeout)
        core = (self._server.cpu() - cpu) / (time.monotonic() - began_at)
        answers = self._hear_all("took", timeout)
        return Step(
            who=self._server.who,
            peers=self._peers,
            interval=interval,
            rate=sum(answer["sent"] for answer in answers) / seconds,
            took=tuple(answers[0]["took"]),
            behind=sum(answer["behind"] for answer in answers),
            core=core,
            cut_off=sum(answer["cut_off"] for answer in answers),
        )

    def _hear_all(self, what: str, timeout: float) -> list[dict[str, Any]]:
        answers = [process.hear(timeout) for process in self._processes]
        assert all(what in answer for answer in answers), f"expected {what}: {answers}"
        return answers


def split(count: int) -> list[int]:
    """How many peers each process plays: the probes first."""
    probes = min(PROBES, max(1, count // 2))
    rest = count - probes
    crowds = [rest // CROWDS + (number < rest % CROWDS) for number in range(CROWDS)]
    return [probes, *(crowd for crowd in crowds if crowd)]
