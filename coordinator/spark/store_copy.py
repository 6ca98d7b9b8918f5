"""What the mirror holds, copied to where ``log_dir`` points when that is an URL of fsspec.

Every 30 s what has changed, and all of it at the end.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from coordinator.core.errors import InvalidRun

_log = logging.getLogger("tflease")

COPY_INTERVAL = 30.0
"""Seconds: object stores cannot append, so that each copy of a file is a whole one."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
"""Without directories: to make one would make a bucket of a name that was mistyped."""

_CHUNK = 1024 * 1024

_AWAY_TIMEOUT = 20.0
_FIRST_DELAY = 0.5
"""Seconds that the last copy waits for a store that was there before, and until its second try."""

_MOST_NAMESAKES = 10_000

_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def is_url(path: str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in path and not path.startswith(("file://", "local://"))


def local_path(path: str) -> Path:
    """Of ``file:///runs/1``, ``file:/runs/1`` or ``runs/1``. Raises InvalidRun for
    ``dbfs:/runs/1``, which would become a directory of that name."""
    for scheme in ("file", "local"):
        path = path.removeprefix(f"{scheme}://")
        path = path.removeprefix(f"{scheme}:") if path.startswith(f"{scheme}:/") else path
    if _ONE_SLASH.match(path):
        scheme, _, rest = path.partition(":")
        raise InvalidRun(
            f"log_dir={path!r} is neither a path of this machine nor an URL: write "
            f"{scheme}:/{rest} with two slashes and its host or bucket, where fsspec knows that, "
            f"or where it is mounted, such as /{scheme}{rest}"
        )
    return Path(path).expanduser().absolute()


class StoreCopy:
    """Copies below ``directory`` to ``url``. Raises InvalidRun when nothing can be written to that,
    because a library is missing for instance. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        url: str,
        say: Callable[[str], object] | None = None,
        interval: float = COPY_INTERVAL,
    ) -> None:
        self.url = url.rstrip("/")
        self._directory = directory
        self._say = say or _log.warning
        self._has_said = False
        self._interval = interval
        self._store, self._root = _open(self.url)
        protocol = self._store.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._has_no_directories = bool(names & _OBJECT_STORES)
        self._copied: dict[Path, tuple[int, int]] = {}  # size and time of change
        self._targets: dict[Path, str] = {}
        self._taken: set[str] = set()  # these
        self._copying = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tflease-store-copy", daemon=True)

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self.copy()

    def copy(self) -> bool:
        """What has changed since it was copied last. False: something could not be copied, which is
        said once and tried again."""
        with self._copying:
            is_good = True
            try:
                paths = sorted(self._directory.rglob("*"))
            except OSError as error:
                self._complain(self._directory, error)
                return False
            for path in paths:
                try:
                    self._copy_if_changed(path)
                except Exception as error:  # whatever a store raises: the run goes on
                    is_good = False
                    self._complain(path, error)
            return is_good

    def _copy_if_changed(self, path: Path) -> None:
        status = path.stat()
        stands = status.st_size, status.st_mtime_ns
        if not path.is_file() or self._copied.get(path) == stands:
            return
        target = self._target(path)
        if not self._has_no_directories:
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
        with path.open("rb") as source, self._store.open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        self._copied[path] = stands  # what it was before: what has come since is copied again

    def _target(self, path: Path) -> str:
        """Beside what an earlier run has left under its name, as in a local directory."""
        if path not in self._targets:
            wanted = f"{self._root}/{path.relative_to(self._directory).as_posix()}"
            names = (f"{wanted}.{number}" for number in range(2, _MOST_NAMESAKES))
            found = next((each for each in chain((wanted,), names) if not self._is_taken(each)), "")
            if not found:
                raise FileExistsError(f"{_MOST_NAMESAKES:,} files of this name are there")
            self._targets[path] = found
            self._taken.add(found)
        return self._targets[path]

    def _is_taken(self, target: str) -> bool:
        if target in self._taken:
            return True
        try:
            return bool(self._store.exists(target))
        except PermissionError:  # we may write and not look
            return False

    def _complain(self, path: Path, error: Exception) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(
                f"event files cannot be copied to {self.url}, and are tried again ({path.name}: "
                f"{_named(error)}); they are in {self._directory}"
            )

    def finish(self, timeout: float) -> bool:
        """The last copy; False when not all could be copied within so many seconds. A store that
        was there before, and is away just now, is waited for."""
        self._ended.set()
        results: list[bool] = []
        give_up_at = time.monotonic() + min(timeout, _AWAY_TIMEOUT)
        last = threading.Thread(
            target=lambda: results.append(self._copy_last(give_up_at)), daemon=True
        )
        last.start()
        last.join(timeout)
        if results != [True]:
            self._say(f"not all event files are in {self.url}; they are in {self._directory}")
        return results == [True]

    def _copy_last(self, give_up_at: float) -> bool:
        delay = _FIRST_DELAY
        while not self.copy():
            if not self._copied or time.monotonic() + delay > give_up_at:
                return False
            time.sleep(delay)
            delay *= 2
        return True


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _open(url: str) -> tuple[Any, str]:
    """The store, and the path in it. Raises InvalidRun."""
    try:
        from fsspec.core import url_to_fs

        store, root = url_to_fs(url)
    except Exception as error:  # whatever a store raises: of its credentials, for instance
        raise InvalidRun(
            f"log_dir={url!r} cannot be opened: {_named(error)}; install the library that "
            "fsspec names, or give a local path"
        ) from None
    return store, str(root).rstrip("/")
