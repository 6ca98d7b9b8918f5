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

from executor_agent import claims
from executor_agent.bootstrap import OUTCOME_FILE, RESULT_FILE
from executor_agent.core.outcome import Outcome
from executor_agent.core.supervision import LOCAL_DIRECTORY

HOME_VARIABLE = "TFLEASE_HOME"

_CLAIMS = "claims"

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
    """A new directory for one incarnation, with its scratch directory inside, and a place for its
    claim. Removes what runs of long ago have left. Raises UnsafeDirectory, OSError."""
    base = home()
    with suppress(OSError):
        _prune(base, time.time() - KEPT_SECONDS)
    name = f"{member.replace(':', '-')}.{incarnation}"
    path = base / run_id / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)
    (path / LOCAL_DIRECTORY).mkdir(mode=0o700)
    (base / _CLAIMS).mkdir(mode=0o700, exist_ok=True)
    return path


def claims_directory() -> Path:
    """Where all our user's members on this host have their claims; the first one makes it. Raises
    UnsafeDirectory, OSError."""
    return home() / _CLAIMS


def claim_of(directory: Path) -> Path:
    """Where the member of this directory has its claim."""
    run = directory.parent
    return run.parent / _CLAIMS / f"{run.name}.{directory.name}.json"


def _prune(base: Path, before: float) -> None:
    # A training of weeks writes to its files, which leaves the directory's own date alone. What is
    # claimed lives, or is still to be swept.
    here = claims.here()
    in_use = {
        claim.directory
        for _, claim in claims.read_all(base / _CLAIMS)
        if claim.boot_id == here.boot_id or claim.host != here.host  # a home may be shared
    }
    for run in base.iterdir():
        if run.name == _CLAIMS:
            continue
        with suppress(OSError):  # another task prunes as well, or it is no directory
            members = list(run.iterdir())
            newest = max(each.stat().st_mtime for each in (run, *members))
            if newest < before and not any(str(each) in in_use for each in members):
                shutil.rmtree(run, ignore_errors=True)


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
