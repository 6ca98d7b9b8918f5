"""What tests of real runs share: finding a run's processes, waiting for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

DEADLINE = 60.0
"""Seconds; generous, because the machine may be busy: it only bounds a test that fails."""


def eventually(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Polls until the condition is true; its value. Fails naming what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)


def marked(run_id: str, member: str = "") -> list[psutil.Process]:
    """Processes of a run (or of one member) that live, by the marker in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            marker = process.environ().get("TFLEASE_MEMBER", "")
            if marker.startswith(f"{run_id}/{member}") and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def command(process: psutil.Process) -> str:
    """Its command line; "" when it is gone meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def agent_of(run_id: str, member: str) -> psutil.Process:
    """The agent of a member."""
    return next(p for p in marked(run_id, member) if "executor_agent.agent" in command(p))


def member_process_of(run_id: str, member: str) -> psutil.Process:
    """The process that runs the user's function."""
    return next(p for p in marked(run_id, member) if "executor_agent.bootstrap" in command(p))


def sentinel_of(run_id: str, member: str) -> psutil.Process:
    """The sentinel of a member."""
    sentinel = agent_of(run_id, member).parent()
    assert sentinel is not None
    assert "executor_agent.sentinel" in command(sentinel)
    return sentinel


def spark_worker_of(run_id: str, member: str) -> psutil.Process:
    """The Spark task's Python worker above a member."""
    worker = sentinel_of(run_id, member).parent()
    assert worker is not None
    assert "pyspark.daemon" in command(worker)
    return worker


def wait_until_gone(processes: list[psutil.Process], what: str) -> None:
    """Fails naming those that still live at the deadline."""
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    assert not alive, f"{what}: {alive}"


def wait_for_file(path: Path) -> None:
    eventually(path.exists, f"{path.name} to appear")
