"""Processes that survive SIGKILL, for tests: in a frozen cgroup of version 1 a process is in state
D and stays there until it is thawed, whatever it is sent. Needs root; version 2 lets SIGKILL pass.
"""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

from tests.integration.sentinel_helpers import eventually

_HIERARCHY = Path("/sys/fs/cgroup/freezer")


def why_not() -> str:
    """Why nothing can be frozen here; empty when it can."""
    if not (_HIERARCHY / "cgroup.procs").exists():
        return "there is no freezer cgroup of version 1, the only one that withstands SIGKILL"
    if not os.access(_HIERARCHY, os.W_OK):
        return "only root may make a freezer cgroup"
    return ""


class Freezer:
    """A cgroup of its own. ``close`` leaves neither it nor a process in it."""

    def __init__(self) -> None:
        self._group = _HIERARCHY / f"tflease-test-{uuid.uuid4().hex}"
        self._group.mkdir()

    def hold(self, pid: int) -> None:
        """From now on nothing ends it. Returns when that is so."""
        (self._group / "cgroup.procs").write_text(str(pid))
        self._set("FROZEN")

    def let_go(self) -> None:
        """What it was sent meanwhile has its effect."""
        self._set("THAWED")

    def close(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        self.let_go()
        eventually(lambda: not self._pids(), "the thawed to die")
        self._group.rmdir()

    def _set(self, state: str) -> None:
        file = self._group / "freezer.state"
        file.write_text(state)
        eventually(lambda: file.read_text().strip() == state, f"the cgroup to be {state}")

    def _pids(self) -> list[int]:
        return [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()]
