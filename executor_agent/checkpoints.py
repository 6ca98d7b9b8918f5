"""The checkpoints below a run's `model_dir`: where a generation writes, and which is the latest.

Owns: looking at directories, of this machine or, through TensorFlow's file systems, of others. What
their names mean is in `core.checkpoint_names`.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, Protocol

from executor_agent.core.checkpoint_names import complete, directory_name, newest_first, step_of

ROOT = "checkpoints"
"""The directory of all generations, below `model_dir`."""


def name_of(created_at: float, run_id: str, generation: int) -> str:
    """The directory of one generation. `created_at`: when the run was made, Unix time."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created_at))
    return directory_name(moment, run_id, generation)


def join(directory: str, name: str) -> str:
    """Of a path or a URI."""
    return f"{directory.rstrip('/')}/{name}"


class Files(Protocol):
    """A file system."""

    def makedirs(self, path: str) -> None:
        """There may be one already."""

    def names(self, path: str) -> list[str]:
        """Those in a directory; none where there is no such directory."""

    def written_at(self, path: str) -> int:
        """In nanoseconds; 0 when it is gone."""


class LocalFiles:
    """What the operating system mounts."""

    def makedirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def names(self, path: str) -> list[str]:
        try:
            return os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def written_at(self, path: str) -> int:
        try:
            return os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return 0


class TensorFlowFiles:
    """What TensorFlow knows: hdfs://, gs:// and the like, as far as its plugins are installed."""

    def __init__(self, gfile: Any) -> None:
        self._gfile = gfile

    def makedirs(self, path: str) -> None:
        self._gfile.makedirs(path)

    def names(self, path: str) -> list[str]:
        try:
            return list(self._gfile.listdir(path)) if self._gfile.isdir(path) else []
        except Exception as error:
            if type(error).__name__ != "NotFoundError":  # of TensorFlow, which we do not import
                raise
            return []  # removed meanwhile

    def written_at(self, path: str) -> int:
        try:
            return int(self._gfile.stat(path).mtime_nsec) if self._gfile.exists(path) else 0
        except Exception as error:
            if type(error).__name__ != "NotFoundError":
                raise
            return 0


def latest(root: str, files: Files) -> str | None:
    """The prefix of the newest complete checkpoint of the newest generation that has one."""
    return next(newest_of_all(root, files), None)


def newest_of_all(root: str, files: Files) -> Iterator[str]:
    """The prefixes of all complete checkpoints, those of the newest generation first, and of each
    generation the newest first. Looks no further than it is asked."""
    for generation in newest_first(files.names(root)):
        directory = join(root, generation)
        found = [join(directory, prefix) for prefix in complete(files.names(directory))]
        if len(found) > 1:
            ages = {each: (files.written_at(f"{each}.index"), step_of(each)) for each in found}
            found.sort(key=ages.__getitem__, reverse=True)
        yield from found


def saved_at(prefix: str, files: Files) -> float:
    """When this checkpoint became complete, Unix time; 0.0 when it is gone."""
    return files.written_at(f"{prefix}.index") / 1e9
