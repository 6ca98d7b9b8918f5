"""A memory cgroup with little room, for the out-of-memory killer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos import proc
from tests.chaos.scene import Scene

_ROOT = Path("/sys/fs/cgroup/memory")
_PREFIX = "tflease-chaos-"
_ROOM = 256 * 2**20
"""Bytes; what the processes have already stays charged where it was."""


def obstacle() -> str:
    """Why no such group can be made here; "" when it can."""
    if not (_ROOT / "memory.limit_in_bytes").exists():
        return "no memory controller of cgroup version 1 is mounted"
    if not os.access(_ROOT, os.W_OK):
        return "this user may not make a memory cgroup"
    return ""


def confine(*names: str, trees: bool = False) -> Callable[[Scene], None]:
    """Puts these actors into a new group; ``trees``: with everything below them."""

    def prepare(scene: Scene) -> None:
        group = _ROOT / f"{_PREFIX}{scene.tag}"
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(_ROOM))
        for name in names:
            root = scene.actors[name].pid
            entries = proc.below(proc.scan(), root) if trees else []
            for pid in (root, *(entry.pid for entry in entries)):
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(pid))

    return prepare


@contextmanager
def narrow(tag: str, pids: Iterable[int], room: int) -> Iterator[None]:
    """These processes, and what they start from now on, have so many bytes together; afterwards
    those that are left are as free as before."""
    group = _ROOT / f"{_PREFIX}{tag}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(room))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (_ROOT / "cgroup.procs").write_text(pid)
        with suppress(OSError):  # somebody in it is on its way out
            group.rmdir()


def nobody_was_killed(scene: Scene, gone: float | None) -> str:
    """Why it was not the kernel; "" when it was."""
    control = (_ROOT / f"{_PREFIX}{scene.tag}" / "memory.oom_control").read_text()
    killed = dict(line.split() for line in control.splitlines()).get("oom_kill", "0")
    return "" if int(killed) > 0 else "the kernel has killed nobody in the memory cgroup"


def remove_groups() -> None:
    """Those whose processes are gone."""
    for group in _ROOT.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            group.rmdir()
