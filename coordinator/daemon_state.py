"""The note that a daemon leaves beside its token, so that commands on the same machine find it.

One file for each daemon, of its owner alone. A note outlives a daemon that was SIGKILLed; a process
is therefore known by its pid, its start and the machine's boot, and never by its pid alone.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PREFIX = "daemon-"
_POLL_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class DaemonState:
    """``address`` is how this machine reaches it, ``started`` in clock ticks since boot.
    ``server_name``: a name in its certificate, which rarely has that address."""

    address: str
    pid: int
    started: int
    boot_id: str
    token_file: str
    version: str
    since: str
    tls: bool = False
    server_name: str = ""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process lives, on this machine."""
        return self.boot_id == boot_id() and self.started == start_of(self.pid)


def boot_id() -> str:
    """Of this machine; empty where the kernel does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def start_of(pid: int) -> int | None:
    """When this process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # After the command's name, which may itself hold spaces and parentheses.
    values = stat[stat.rindex(")") + 2 :].split()
    return None if values[0] in "ZX" else int(values[19])


def write(state: DaemonState) -> Path:
    """Returns the file. Raises OSError."""
    directory = Path(state.token_file).parent
    path = directory / f"{_PREFIX}{socket.gethostname()}-{state.port}.json"
    draft = directory / f".{path.name}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(json.dumps(asdict(state)) + "\n")
    draft.replace(path)  # whoever reads it sees all of it
    return path


def remove(path: Path, state: DaemonState) -> None:
    """If it is still this daemon's."""
    if _read(path) == state:
        with suppress(OSError):
            path.unlink()


def living(directory: Path) -> list[DaemonState]:
    """The daemons of this machine that left a note in this directory and still live."""
    try:
        notes = [_read(path) for path in sorted(directory.glob(f"{_PREFIX}*.json"))]
    except OSError:  # a folder that is not for us; whoever needs the token in it will say so
        return []
    return [state for state in notes if state is not None and state.is_alive]


def _read(path: Path) -> DaemonState | None:
    """None for what is no note, or not ours: it decides who gets a signal and our token."""
    try:
        with path.open() as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                return None
            state = DaemonState(**json.load(file))
        for item in fields(state):
            kind = {"pid": int, "started": int, "tls": bool}.get(item.name, str)
            if type(getattr(state, item.name)) is not kind:
                return None
        return state if state.pid > 0 and state.port > 0 else None
    except (OSError, TypeError, ValueError):
        return None


def terminate(state: DaemonState) -> int | None:
    """SIGTERM to exactly this process. Returns a pidfd for ``wait_gone``, None where there are no
    pidfds. Raises ProcessLookupError when it is gone, PermissionError when it is not ours."""
    try:
        pidfd: int | None = os.pidfd_open(state.pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):  # the kernel refuses, or this Python was built without
        pidfd = None
    try:
        if not state.is_alive:  # from here on nobody else can have the number
            raise ProcessLookupError(f"process {state.pid} is not that daemon")
        if pidfd is None:
            os.kill(state.pid, signal.SIGTERM)
        else:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except BaseException:
        if pidfd is not None:
            os.close(pidfd)
        raise
    return pidfd


def wait_gone(state: DaemonState, pidfd: int | None, timeout: float) -> bool:
    """Waits until it has ended; False after ``timeout`` seconds."""
    if pidfd is not None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(timeout * 1000))
    deadline = time.monotonic() + timeout
    while state.is_alive:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    return True
