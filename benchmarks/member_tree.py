"""A run whose one member is `victim.serve`, and its processes as /proc shows them.

For figures that look at a member from outside; nothing here asks the product who is who.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import stopwatch
from benchmarks.stopwatch import Process
from benchmarks.victim import HELPERS, serve

_READY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A member's processes. ``descendants``: everything below the sentinel but the agent's."""

    task: Process
    tensorflow: Process
    descendants: tuple[Process, ...]
    agent: int
    marker: str
    resident_mib: float


@contextmanager
def running(spark: Any, facts: Path, tensor_mib: int) -> Iterator[Tree]:
    """A member that serves, with its helpers; at the end nothing of it is left."""
    from coordinator import Roles, TFCluster

    cluster = TFCluster.run(
        spark,
        serve,
        {"tensor_mib": tensor_mib, "facts": str(facts)},
        roles=Roles(worker=1),
        grace={"worker": 0.0},
        name="kill-latency",
        progress=False,
    )
    try:
        yield find_tree(facts)
    finally:
        cluster.shutdown(grace=0.0)


def find_tree(facts: Path) -> Tree:
    """Waits until the member serves, then reads its processes from /proc."""
    deadline = time.monotonic() + _READY_TIMEOUT
    while not facts.exists():
        _wait(deadline, "has not begun to serve")
    told = json.loads(facts.read_text())
    while not _listens(told["address"]):
        _wait(deadline, "does not listen")
    tensorflow = psutil.Process(told["pid"])
    sentinel = tensorflow.parent()
    task = sentinel.parent() if sentinel is not None else None
    if sentinel is None or task is None or "executor_agent.sentinel" not in sentinel.cmdline():
        raise RuntimeError("the member's process is not the child of a sentinel")
    [agent] = [each for each in sentinel.children() if "executor_agent.agent" in each.cmdline()]
    below = [each.pid for each in sentinel.children(recursive=True)]
    agents = {agent.pid, *(each.pid for each in agent.children(recursive=True))}
    descendants = tuple(Process.now(pid) for pid in below if pid not in agents)
    marker = stopwatch.marker_of(tensorflow.pid)
    marked = set(stopwatch.marked(marker, without=agent.pid))
    if len(descendants) != 1 + HELPERS or marked != set(descendants):
        raise RuntimeError(f"expected TensorFlow and {HELPERS} helpers, found {descendants}")
    return Tree(
        task=Process.now(task.pid),
        tensorflow=Process.now(tensorflow.pid),
        descendants=descendants,
        agent=agent.pid,
        marker=marker,
        resident_mib=tensorflow.memory_info().rss / 2**20,
    )


def _wait(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"after {_READY_TIMEOUT:g} s the member {what}")
    time.sleep(0.02)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
