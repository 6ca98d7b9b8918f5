"""Kills a member of a run that restarts, and says when what was seen until all were back."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import run_processes
from benchmarks.stopwatch import Process

if TYPE_CHECKING:
    from coordinator.core.model import RunView

TIMEOUT = 120.0
_LOOK = 0.01


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill. Seconds from just before it: ``known``: the coordinator had seen that end, infinity
    when the pictures did not show it; ``decided``: all members were proven gone, and the policy had
    chosen; ``forked``: the last of the new processes was there; ``ready``: the last had imported
    what it preloads; ``entered``: the last was in `main_fun`. ``told``, ``found``: the step that
    had been told before the death, and that of the checkpoint found after it."""

    known: float
    decided: float
    forked: float
    ready: float
    entered: float
    told: int = 0
    found: int = 0
    was_quiet: bool = True


class Pictures:
    """Follows a run as a display would. Pictures come ten times a second, so that a phase that is
    shorter may not be in any."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, float]] = set()
        self.failed_at = math.inf

    def __call__(self, run: RunView) -> None:
        for member in run.members:
            self._seen.add((str(member.id), member.phase.value, member.phase_at))
        if run.failure is not None and math.isinf(self.failed_at):
            self.failed_at = time.time()

    def first(self, phases: tuple[str, ...], after: float) -> float:
        """The earliest time after that at which any member came to one of these; infinity when no
        picture had it."""
        times = (at for _, phase, at in tuple(self._seen) if phase in phases and at > after)
        return min(times, default=math.inf)


def stamps(folder: Path, generation: int, members: int) -> list[dict[str, Any]]:
    """What all members of a generation said when they entered. Raises TimeoutError."""
    paths = [folder / f"{generation}-{index}" for index in range(members)]
    deadline = time.monotonic() + TIMEOUT
    while not all(path.exists() for path in paths):
        if time.monotonic() > deadline:
            missing = [path.name for path in paths if not path.exists()]
            raise TimeoutError(f"{', '.join(missing)} not entered within {TIMEOUT:g} s")
        time.sleep(_LOOK)
    return [json.loads(path.read_text()) for path in paths]


def wait_until_all_run(cluster: Any, generation: int) -> None:
    """As the coordinator sees it. Raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        run = cluster.status()
        running = [member.phase.value == "running" for member in run.members]
        if run.generation == generation and all(running):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"generation {generation} does not run within {TIMEOUT:g} s")
        time.sleep(_LOOK)


def kill(cluster: Any, pictures: Pictures, folder: Path, generation: int, victim: int) -> Recovery:
    """SIGKILL of the TensorFlow process of one member of this generation; returns when the next
    one has been entered by all. Raises TimeoutError; TfleaseError when the run failed."""
    from coordinator.core.errors import TfleaseError

    members = len(cluster.status().members)
    process = Process.now(stamps(folder, generation, members)[victim]["pid"])
    killed_at = time.time()
    os.kill(process.pid, signal.SIGKILL)
    try:
        entered = stamps(folder, generation + 1, members)
    except TimeoutError:
        failure = cluster.status().failure
        if failure is not None:
            raise TfleaseError(f"the run failed instead: {failure.summary}") from None
        raise
    begun = run_processes.begun_at(str(cluster.run_id))
    wait_until_all_run(cluster, generation + 1)
    restart = cluster.status().restarts[-1]
    if restart.generation != generation:
        raise RuntimeError(f"the last restart is of generation {restart.generation}: {restart}")
    ready_at = pictures.first(("starting",), killed_at)
    if math.isinf(ready_at):
        ready_at = pictures.first(("running",), killed_at)
    return Recovery(
        known=pictures.first(("exited",), killed_at) - killed_at,
        decided=restart.at - killed_at,
        forked=max(begun["executor_agent.bootstrap"]) - killed_at,
        ready=ready_at - killed_at,
        entered=max(each["at"] for each in entered) - killed_at,
        told=restart.step,
        found=min(each["step"] for each in entered),
    )
