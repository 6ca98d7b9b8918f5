"""The evidence of out-of-memory kills: the memory cgroup's counter, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from executor_agent.core.oom import Oom, judge_oom
from executor_agent.core.supervision import ExitFacts

_PROC = Path("/proc")


class OomWatch:
    """Made before the member starts, or as soon as it does: it counts from then on."""

    def __init__(self) -> None:
        self._before = oom_kill_count()

    def verdict(self, facts: ExitFacts) -> Oom:
        """To be asked when the member has ended."""
        return judge_oom(facts.signal, facts.killed_by_us, self._before, oom_kill_count())


def oom_kill_count(
    membership: Path = _PROC / "self/cgroup", hierarchy: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """How many processes the kernel has killed in our memory cgroup for want of memory.

    None where it cannot be read. Only its rise means anything.
    """
    for counter in _oom_counters(membership, hierarchy):
        with suppress(OSError, ValueError):
            for line in counter.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return None


def _oom_counters(membership: Path, hierarchy: Path) -> Iterator[Path]:
    """Version 1 first: where both exist, the memory controller is there. In a container the path
    that the kernel names may not exist; its own cgroup is then mounted at the top."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if "memory" in controllers.split(","):
            yield hierarchy / "memory" / path.lstrip("/") / "memory.oom_control"
            yield hierarchy / "memory" / "memory.oom_control"
    for number, _, path in (line for line in lines if len(line) == 3):
        if number == "0":
            yield hierarchy / path.lstrip("/") / "memory.events"
            yield hierarchy / "memory.events"
