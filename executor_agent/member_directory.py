"""Where a member's files live on an executor: log, outcome, result, tombstone, scratch.

``$TFLEASE_HOME`` or ``/tmp/tflease-<uid>``, then ``<run>/<member>.<incarnation>``; 0700 and ours,
because a tombstone is believed and a log may hold secrets.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from executor_agent.bootstrap import OUTCOME_FILE, RESULT_FILE
from executor_agent.core.outcome import Outcome
from executor_agent.core.supervision import CLAIM, LOCAL_DIRECTORY, Claim
from executor_agent.linux import boot_id
from executor_agent.processes import ProcessIdentity, is_running

HOME_VARIABLE = "TFLEASE_HOME"

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long the files of a run are kept after its last change, for whoever comes to look."""


class UnsafeDirectory(RuntimeError):
    """A directory that others could have written to stands where ours should be."""


def home() -> Path:
    """The directory of this user, made when missing. Raises UnsafeDirectory, OSError."""
    configured = os.environ.get(HOME_VARIABLE)
    path = (
        Path(configured).absolute()
        if configured
        else Path(tempfile.gettempdir(), f"tflease-{os.geteuid()}")
    )
    path.mkdir(mode=0o700, parents=bool(configured), exist_ok=True)
    found = path.lstat()
    is_ours = found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
    if not is_ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise UnsafeDirectory(
            f"{path} must be a directory of uid {os.geteuid()} with mode 0700: remove it, or set "
            f"{HOME_VARIABLE} for the executors"
        )
    return path


def create(run_id: str, member: str, incarnation: str) -> Path:
    """A new directory for one incarnation, with its scratch directory inside. Removes what runs
    of long ago have left. Raises UnsafeDirectory, OSError."""
    base = home()
    with suppress(OSError):
        _prune(base, time.time() - KEPT_SECONDS)
    name = f"{member.replace(':', '-')}.{incarnation}"
    path = base / run_id / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)
    (path / LOCAL_DIRECTORY).mkdir(mode=0o700)
    return path


def _prune(base: Path, before: float) -> None:
    for run in base.iterdir():
        with suppress(OSError):  # another task prunes as well, or it is no directory
            members = list(run.iterdir())
            newest = max(each.stat().st_mtime for each in (run, *members))
            if newest < before and not any(map(_is_in_use, members)):
                shutil.rmtree(run, ignore_errors=True)


def _is_in_use(directory: Path) -> bool:
    """A training of weeks writes to its files, which leaves the directory's own date alone."""
    try:
        claim = Claim.from_json((directory / CLAIM).read_bytes())
    except (OSError, ValueError):
        return False
    processes = claim.processes.values()
    return claim.boot_id == boot_id() and any(is_running(ProcessIdentity(*p)) for p in processes)


def read_outcome(directory: Path) -> Outcome | None:
    """What the member's process said of its end; None when it said nothing."""
    try:
        return Outcome.loads((directory / OUTCOME_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def take_result(directory: Path) -> bytes | None:
    """The pickled return value, which is removed; None when there is none."""
    path = directory / RESULT_FILE
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        path.unlink()
    return data
