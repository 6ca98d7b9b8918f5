"""Who listens on a port of this machine, for the message that says why another cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTENS = "0A"  # TCP_LISTEN


def who_listens(port: int) -> str:
    """For instance "process 4711 (java)"; of other users' processes only that there is one. Empty
    when nobody listens there, or the kernel does not tell."""
    sockets = set(_listening_sockets(port))
    if not sockets:
        return ""
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # gone, or another user's
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        name = (process / "comm").read_text().strip()
                        return f"process {process.name} ({name})"
    return "a process of another user"


def _listening_sockets(port: int) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (_PROC / table).read_text().splitlines()[1:]:
                values = line.split()
                if values[3] == _LISTENS and int(values[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{values[9]}]"
