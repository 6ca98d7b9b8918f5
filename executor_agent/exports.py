"""Copies of what a member has made, below `model_dir`, whatever kind of place that is.

On a path a copy gets its name by a rename. URLs have none that can be relied on (that of ram://
loses directories): there the file that makes a SavedModel one is removed first and comes last, so
that nobody loads half of it.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from executor_agent.checkpoints import ROOT, join

_LAST = ("fingerprint.pb", "saved_model.pb")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def checked_name(path: str, name: str | None) -> str:
    """Of the copy, below `model_dir`. Raises ValueError, FileNotFoundError."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no {path} to be copied to model_dir")
    name = os.path.basename(os.path.normpath(path)) if name is None else name
    parts = name.rstrip("/").split("/")
    if _URI.match(name) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"name={name!r}: must be a path below model_dir, such as 'export/1'")
    if parts[0] == ROOT:
        raise ValueError(f"name={name!r}: {ROOT!r} is where ctx.checkpoint_dir is; take another")
    return "/".join(parts)


def to_directory(path: str, target: str) -> None:
    """On this machine, or what is mounted on it."""
    if os.path.realpath(path) == os.path.realpath(target):
        return  # it was made there
    os.makedirs(os.path.dirname(target), exist_ok=True)
    half = _beside(target, "new")
    try:
        if os.path.isdir(path):
            shutil.copytree(path, half)
        else:
            shutil.copy2(path, half)
        if os.path.isdir(target) and not os.path.islink(target):
            old = _beside(target, "old")  # a directory that is not empty is not replaced at once
            os.rename(target, old)
            os.rename(half, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(half, target)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        with suppress(OSError):
            os.unlink(half)
        raise


class Place(Protocol):
    """Where files are put by their URLs. `model_files.StoreFiles` is one."""

    def put(self, local: str, path: str, moved: Callable[[], None]) -> None: ...

    def remove(self, path: str) -> None: ...

    def below(self, path: str) -> list[str]: ...


class TensorFlowPlace:
    """What TensorFlow knows: hdfs://, gs:// and the like. Not all of them rename directories."""

    def __init__(self, gfile: Any) -> None:
        self._gfile = gfile

    def put(self, local: str, path: str, moved: Callable[[], None]) -> None:
        self._gfile.makedirs(path.rpartition("/")[0])
        self._gfile.copy(local, path, overwrite=True)

    def remove(self, path: str) -> None:
        self._gfile.remove(path)

    def below(self, path: str) -> list[str]:
        if not self._gfile.isdir(path):
            return []
        found = [
            join(folder, name) for folder, _, names in self._gfile.walk(path) for name in names
        ]
        return [each[len(path) + 1 :] for each in found]


def to_store(path: str, target: str, files: Place, moved: Callable[[], None]) -> None:
    """To a place without a rename. Can be done again after it was cut off."""
    names = _files_of(path)
    if names == [""]:
        files.put(path, target, moved)
        return
    there = set(files.below(target))
    for name in sorted(there & set(_LAST)):
        files.remove(join(target, name))
    for name in sorted(names, key=lambda each: (_LAST.index(each) if each in _LAST else -1, each)):
        files.put(os.path.join(path, name), join(target, name), moved)
        moved()
    for name in sorted(there - set(names)):
        files.remove(join(target, name))


def _files_of(path: str) -> list[str]:
    """Relative to it; "" of a file itself."""
    if not os.path.isdir(path):
        return [""]
    found = (each for each in Path(path).rglob("*") if each.is_file())
    return sorted(each.relative_to(path).as_posix() for each in found)


def _beside(target: str, word: str) -> str:
    folder, _, name = target.rpartition("/")
    return f"{folder}/.{name}.{word}-{uuid.uuid4().hex[:8]}"
