"""Claims on disk: one small file a living member, in one directory for all members of our user on
this host, so that looking for leftovers costs what lives, not what has ever lived."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from executor_agent.core.claim import Claim, Place
from executor_agent.core.supervision import SentinelConfig
from executor_agent.linux import boot_id, write_atomically
from executor_agent.processes import identity_of

if TYPE_CHECKING:
    from pathlib import Path  # is loaded by whoever has one, which the sentinel has not

_SUFFIX = ".json"


def write(config: SentinelConfig, pids: Mapping[str, int]) -> Claim:
    """Write down who was started so far; none of them is reaped yet. Raises OSError."""
    found = {name: identity_of(pid) for name, pid in pids.items()}
    executor = {name: who for name, who in config.watch.items() if name == "executor"}
    claim = Claim(
        member=config.member,
        run_id=config.run_id,
        incarnation=config.incarnation,
        marker=config.marker,
        directory=config.directory,
        boot_id=boot_id(),
        claimed_at=time.time(),
        processes={
            name: (identity.pid, identity.create_time)
            for name, identity in found.items()
            if identity is not None
        },
        # One that is to be handed over outlives its task and that task's daemon.
        anchors=config.watch if config.voice_fd is None else executor,
        pipe=os.fstat(config.shared_dead_man_read_fd).st_ino,
        host=_host(),
        namespace=_namespace(),
    )
    write_atomically(config.claim, claim.to_json())
    return claim


def read(path: Path) -> Claim | None:
    """None: there is none, or it cannot be understood."""
    try:
        return Claim.from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def read_all(directory: Path) -> Iterator[tuple[Path, Claim]]:
    """Every claim that can be understood, in the order of its name. A directory that does not exist
    has none. Raises OSError."""
    for path in paths(directory):
        claim = read(path)
        if claim is not None:
            yield path, claim


def paths(directory: Path) -> list[Path]:
    """Every claim, whether or not it can be understood, as `read_all`."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    return [directory / name for name in names if name.endswith(_SUFFIX)]


def here() -> Place:
    """Where this process is."""
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Place(boot_id(), _host(), _namespace(), booted_at)


def _host() -> str:
    """A container without an identity of its own mostly has a name of its own, and the other way
    round; that both are another's must not happen by accident."""
    machine = ""
    with suppress(OSError), open("/etc/machine-id") as file:
        machine = file.read().strip()
    return f"{os.uname().nodename} {machine}".strip()


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
