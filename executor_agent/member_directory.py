"""Where a member's files live on an executor: log, outcome, result, tombstone, scratch.

``$TFLEASE_HOME`` or ``/tmp/tflease-<uid>``, then ``<run>/<member>.<incarnation>``; 0700 and ours,
because a tombstone is believed and a log may hold secrets.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from executor_agent import claims
from executor_agent.bootstrap import OUTCOME_FILE, RESULT_FILE
from executor_agent.core.claim import Place
from executor_agent.core.outcome import Outcome
from executor_agent.core.supervision import LOCAL_DIRECTORY

HOME_VARIABLE = "TFLEASE_HOME"

_CLAIMS = "claims"
_MEMBER = re.compile(r"(chief|worker|ps|evaluator)-\d+\..+")

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
    """Runs that nobody has touched since. What else somebody keeps there is not ours."""
    here = claims.here()
    for run in base.iterdir():
        with suppress(OSError):  # another task prunes as well, or it is no directory
            members = list(run.iterdir())
            ours = bool(members) and all(_MEMBER.fullmatch(each.name) for each in members)
            if ours and max(map(_last_change, members)) < before:
                kept = [claim_of(each) for each in members]
                if not any(_is_claimed(claim, here) for claim in kept):
                    for claim in kept:
                        claim.unlink(missing_ok=True)
                    shutil.rmtree(run, ignore_errors=True)


def _last_change(member: Path) -> float:
    """Of its files too: a training of weeks writes to its log, which leaves the directory's own
    date alone."""
    return max(each.stat().st_mtime for each in (member, *member.iterdir()))


def _is_claimed(path: Path, here: Place) -> bool:
    """Whether it lives or is still to be swept, as far as this host can tell; of another one that
    shares the home, a week without a word has to do."""
    claim = claims.read(path)
    return claim is not None and (claim.boot_id, claim.host) == (here.boot_id, here.host)


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
