"""Who uses a GPU of this host: one file a GPU, locked by whoever has it (G2).

Owns: the claim files. They decide between applications that share no coordinator, also of
different users. A claim is an ``flock`` on an open file, so that the kernel frees it exactly when
the last process that has the descriptor is gone, however it ends. What stands in the file is for
the next one to read (who has it, how the GPU was before) and to obey (tokens that are too old);
garbage in it costs no more than that. Must not know NVML.

The directory must lie on a disk of this host: over a network locks are made differently.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.core.gpu import LeaseToken
from executor_agent.linux import boot_id

VARIABLE = "TFLEASE_GPU_CLAIMS"

# Not TMPDIR: applications of different users have different ones, and must meet here.
DEFAULT = Path("/tmp/tflease-gpus")

_MOST_BYTES = 1 << 16
_MOST_COORDINATORS = 256  # whose tokens are remembered, the latest
PATIENCE = 0.3
"""Seconds that a lock is tried for: others hold it for a moment only to look."""

_INTERVAL = 0.01


class ClaimRefused(Exception):
    """``holder``: who has the GPU, or what is in the way, in words. ``pids``: of who has it."""

    def __init__(self, holder: str, pids: tuple[int, ...] = ()) -> None:
        super().__init__(holder)
        self.holder = holder
        self.pids = pids


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last claim of a GPU. ``baseline``: bytes of its memory that were in use before, None
    when not known or of an earlier boot; ``since``: Unix time."""

    who: str
    baseline: int | None
    since: float


class HostClaims:
    """The claims in ``directory``; made where it does not exist, for all users."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(os.environ.get(VARIABLE) or DEFAULT)

    def claim(self, uuid: str, token: LeaseToken, who: str, baseline: int | None) -> int:
        """The locked descriptor (close-on-exec): whoever has it, or a copy, has the GPU. Raises
        ClaimRefused: somebody else has it, or the token is not younger than those seen before."""
        with self.lock(uuid) as lock:
            lock.check(token)
            lock.record(token, who, baseline)
            return lock.keep()

    def fence(self, uuid: str, coordinator_id: str, number: int) -> None:
        """From now on no token of this coordinator up to ``number`` can claim the GPU. Raises
        ClaimRefused: somebody has it."""
        with self.lock(uuid) as lock:
            lock.fence(coordinator_id, number)

    def check_free(self, uuid: str, give_up_at: float | None = None) -> None:
        """Raises ClaimRefused: somebody has it. Several may look at a time. ``give_up_at``: on the
        monotonic clock; None: after `PATIENCE`."""
        with self._locked(uuid, fcntl.LOCK_SH, give_up_at):
            pass

    def last(self, uuid: str) -> Remembered | None:
        """What is known of the last claim, or of the present one."""
        try:
            fd = self._open(uuid, may_create=False)
        except (OSError, ClaimRefused):
            return None
        try:
            return _remembered(_read(fd))
        finally:
            os.close(fd)

    def path(self, uuid: str) -> Path:
        """Of the GPU's file; the directory may not be there yet."""
        return self.directory / (re.sub(r"[^\w-]", "_", uuid) + ".claim")

    @contextmanager
    def lock(self, uuid: str, give_up_at: float | None = None) -> Iterator[Lock]:
        """The claim for as long as the block runs, or longer where it is kept. Raises
        ClaimRefused. ``give_up_at``: as for `check_free`; of several locks all have the same, so
        that those that are had are not kept from others for long."""
        with self._locked(uuid, fcntl.LOCK_EX, give_up_at) as lock:
            yield lock

    @contextmanager
    def _locked(self, uuid: str, operation: int, give_up_at: float | None) -> Iterator[Lock]:
        if give_up_at is None:
            give_up_at = time.monotonic() + PATIENCE
        try:
            fd = self._take(uuid, operation, give_up_at)
        except OSError as error:
            raise ClaimRefused(
                f"nobody known: the claim file {self.path(uuid)} cannot be used: {error.strerror}; "
                f"the directory must be writable for all users (mode 1777), or {VARIABLE} name "
                "another one"
            ) from None
        lock = Lock(fd, self.path(uuid))
        try:
            yield lock
        finally:
            lock.close()

    def _take(self, uuid: str, operation: int, give_up_at: float) -> int:
        """Raises OSError, ClaimRefused."""
        while True:
            fd = self._open(uuid, may_create=True)
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
                if self._is_current(uuid, fd):
                    return fd  # else it was removed meanwhile: others would lock its successor
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    try:
                        refused = _refused(fd)
                    finally:
                        os.close(fd)
                    raise refused from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            time.sleep(_INTERVAL)

    def _is_current(self, uuid: str, fd: int) -> bool:
        mine = os.fstat(fd)
        try:
            there = os.stat(self.path(uuid), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _open(self, uuid: str, *, may_create: bool) -> int:
        """Never through a link that somebody has put there. O_CREAT only for a new file: with it
        the kernel refuses another user's file in such a directory (fs.protected_regular). Raises
        OSError, ClaimRefused."""
        path, flags = self.path(uuid), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if may_create:
            self._make_directory()
        self._check_directory()
        while True:
            try:
                fd = os.open(path, flags)
                break
            except FileNotFoundError:
                if not may_create:
                    raise
            try:
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue  # another agent was faster
            os.fchmod(fd, 0o666)  # whatever the umask: the next one may be another user
            break
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise ClaimRefused(f"nobody known: {path} is no claim file; remove it")
        return fd

    def _make_directory(self) -> None:
        if not os.path.lexists(self.directory):
            with suppress(FileExistsError):
                self.directory.mkdir()  # no parents: they would be for ourselves alone
                self.directory.chmod(0o1777)

    def _check_directory(self) -> None:
        """Whoever made it first must not be able to put other files into the place of ours."""
        mode = os.stat(self.directory, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "is no directory, or a link", self.directory)
        if mode & 0o022 and not mode & stat.S_ISVTX:
            raise ClaimRefused(
                f"nobody known: {self.directory} lets others remove files that are not theirs: "
                f"chmod 1777 {self.directory}"
            )


class Lock:
    """A claim file that we have locked."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._content = _read(fd)

    @property
    def last(self) -> Remembered | None:
        """As `HostClaims.last`."""
        return _remembered(self._content)

    def check(self, token: LeaseToken) -> None:
        """Raises ClaimRefused: a younger token of its coordinator was here."""
        seen = self._tokens().get(token.coordinator_id)
        if seen is not None and token.number <= seen:
            raise ClaimRefused(
                f"nobody, but the lease {token} is too old: its coordinator has granted, or asked "
                f"about, this GPU as {seen} since ({self._path})"
            )

    def record(self, token: LeaseToken, who: str, baseline: int | None) -> None:
        """The GPU is claimed from now on. Raises ClaimRefused: it cannot be written."""
        self._write(
            {
                "who": who,
                "pid": os.getpid(),
                "namespace": _namespace(),
                "user": os.getuid(),
                "since": time.time(),
                "baseline": baseline,
                "boot_id": boot_id(),
                "tokens": self._with(token.coordinator_id, token.number),
            }
        )

    def fence(self, coordinator_id: str, number: int) -> None:
        """As `HostClaims.fence`. Raises ClaimRefused: it cannot be written."""
        self._write(self._content | {"tokens": self._with(coordinator_id, number)})

    def keep(self) -> int:
        """The descriptor, which is the caller's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Lets go, unless it was kept. Idempotent."""
        if self._fd >= 0:
            os.close(self.keep())

    def _tokens(self) -> dict[str, int]:
        tokens = self._content.get("tokens")
        if not isinstance(tokens, dict):
            return {}
        return {each: n for each, n in tokens.items() if type(n) is int}

    def _with(self, coordinator_id: str, number: int) -> dict[str, int]:
        tokens = self._tokens()
        tokens[coordinator_id] = max(number, tokens.pop(coordinator_id, number))
        return dict(list(tokens.items())[-_MOST_COORDINATORS:])

    def _write(self, content: Mapping[str, Any]) -> None:
        """In place: the lock belongs to this file. A reader takes the first line, which is whole
        also when we end before the rest of a longer one is cut off."""
        data = json.dumps(content).encode() + b"\n"
        try:
            if os.pwrite(self._fd, data, 0) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(self._fd, len(data))
        except OSError as error:
            raise ClaimRefused(
                f"nobody known: {self._path} cannot be written: {error.strerror}"
            ) from None
        self._content = dict(content)


# -- what stands in a file -----------------------------------------------------------------


def _read(fd: int) -> dict[str, Any]:
    """Empty for anything but what we write ourselves."""
    try:
        line, _, _ = os.pread(fd, _MOST_BYTES, 0).partition(b"\n")
        content = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _remembered(content: Mapping[str, Any]) -> Remembered | None:
    who, since = content.get("who"), content.get("since")
    if not isinstance(who, str) or not isinstance(since, int | float):
        return None
    baseline = content.get("baseline")
    is_known = type(baseline) is int and content.get("boot_id") == boot_id()
    return Remembered(who, baseline if is_known else None, float(since))


def _refused(fd: int) -> ClaimRefused:
    """Names who holds the lock of this file."""
    content = _read(fd)
    last = _remembered(content)
    pids = _processes_with(fd)
    if last is None:
        return ClaimRefused("somebody who has not said who it is", pids)
    if not pids and content.get("namespace") == _namespace():
        pid = content.get("pid")
        pids = (pid,) if type(pid) is int and os.path.exists(f"/proc/{pid}") else ()
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(last.since))
    except (OverflowError, ValueError, OSError):
        since = "?"
    who = f"{last.who} (user {content.get('user', '?')}, since {since})"
    if content.get("pid") not in pids and pids and all(map(_is_agent, pids)):
        who = f"an agent that looks at it just now; last {who}"
    return ClaimRefused(who, pids)


def _is_agent(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"executor_agent.agent" in file.read()
    return False


def _processes_with(fd: int) -> tuple[int, ...]:
    """The processes but us that have this file open, as far as we may see."""
    wanted = os.fstat(fd)
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid() and _has_open(name, wanted):
            found.append(int(name))
    return tuple(sorted(found))


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False  # gone, or another user's
    for name in names:
        with suppress(OSError):
            status = os.stat(f"{folder}/{name}")
            if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
