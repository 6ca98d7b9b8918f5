"""What the mirror holds, copied to where ``log_dir`` points when that is an URL of fsspec.

Every 30 s what has changed, and all of it at the end.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.core.errors import InvalidRun

_log = logging.getLogger("tflease")

COPY_INTERVAL = 30.0
"""Seconds: object stores cannot append, so that each copy of a file is a whole one."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
"""Without directories: to make one would make a bucket of a name that was mistyped."""

_CHUNK = 1024 * 1024


def is_url(path: str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in path and not path.startswith(("file://", "local://"))


def local_path(path: str) -> Path:
    """Of ``file:///runs/1`` or ``runs/1``."""
    return Path(path.removeprefix("file://").removeprefix("local://")).expanduser().absolute()


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
            for path in sorted(self._directory.rglob("*")):
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
        target = f"{self._root}/{path.relative_to(self._directory).as_posix()}"
        if not self._has_no_directories:
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
        with path.open("rb") as source, self._store.open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        self._copied[path] = stands  # what it was before: what has come since is copied again

    def _complain(self, path: Path, error: Exception) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(
                f"event files cannot be copied to {self.url}, and are tried again ({path.name}: "
                f"{type(error).__name__}: {error}); they are in {self._directory}"
            )

    def finish(self, timeout: float) -> bool:
        """The last copy; False when not all could be copied within so many seconds."""
        self._ended.set()
        results: list[bool] = []
        last = threading.Thread(target=lambda: results.append(self.copy()), daemon=True)
        last.start()
        last.join(timeout)
        if results != [True]:
            self._say(f"not all event files are in {self.url}; they are in {self._directory}")
        return results == [True]


def _open(url: str) -> tuple[Any, str]:
    """The store, and the path in it. Raises InvalidRun."""
    try:
        from fsspec.core import url_to_fs

        store, root = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise InvalidRun(
            f"log_dir={url!r} cannot be opened: {error}; install the library that fsspec names, or "
            "give a local path"
        ) from None
    return store, str(root).rstrip("/")
