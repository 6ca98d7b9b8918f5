"""The processes of a run as /proc shows them: who began when, and who is left when it is over.

For figures that look at whole runs; nothing here asks the product who is who.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

from benchmarks import stopwatch
from benchmarks.stopwatch import Process

PARTS = (
    "coordinator.embedded",
    "executor_agent.sentinel",
    "executor_agent.agent",
    "executor_agent.bootstrap",
)
"""What a run consists of, by the module that the process runs; the last is the member."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def begun_at(run_id: str) -> dict[str, list[float]]:
    """Unix times at which the run's processes were forked, by part; to the clock tick, 10 ms.

    The driver has one run at a time, so the coordinator below it is that of the run.
    """
    since_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for process in of_run(run_id):
        part = part_of(process.pid)
        if part:
            found[part].append(since_boot + process.started / _TICKS_PER_SECOND)
    return found


def left_behind(run_id: str) -> tuple[str, ...]:
    """What still lives of a run that is over: pids and command lines."""
    return tuple(f"{each.pid} {stopwatch.command(each.pid)}" for each in of_run(run_id))


def of_run(run_id: str) -> set[Process]:
    """Every process of the run: by the marker, which orphans carry, too; and by descent, as
    sentinel and coordinator belong to no member."""
    return {*stopwatch.marked(f"{run_id}/"), *_our_own()}


def _our_own() -> Iterator[Process]:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, ProcessLookupError):  # it ends while we look
            if child.status() != psutil.STATUS_ZOMBIE and part_of(child.pid):
                yield Process.now(child.pid)


def part_of(pid: int) -> str:
    """Which of `PARTS` the process is; "" for a descendant, or for nobody of ours."""
    words = stopwatch.command(pid).split()
    return next((part for part in PARTS if part in words), "")
