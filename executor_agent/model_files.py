"""The files below a `model_dir` that only fsspec reaches: a store.

Owns everything about checkpoints and models that speaks to fsspec, which is imported when it is
first used. Retries nothing: who calls knows what may wait.
"""

import os
import posixpath
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from executor_agent.ingest.errors import is_missing, is_refusal, missing_library
from executor_agent.ingest.names import shown, without_secrets

Moved = Callable[[], None]
"""Is called whenever some bytes have gone over the network."""


class StoreError(Exception):
    """Checkpoints or models cannot be copied to or from the store; the message says what to do."""


class StoreFiles:
    """A file system, by the URLs of its files. Satisfies `checkpoints.Files`.

    Raises StoreError: its library is missing, or the URL makes no sense.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs

            # A listing that is kept would hide what other members have written since.
            self._files, _ = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise StoreError(missing_library(shown(url), error)) from error
        except (TypeError, ValueError) as error:
            raise StoreError(f"model_dir={shown(url)!r} cannot be used: {error}") from error

    def makedirs(self, path: str) -> None:
        """Nothing to do: `put` makes what it needs."""

    def names(self, path: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._path(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [posixpath.basename(each.rstrip("/")) for each in found]

    def written_at(self, path: str) -> int:
        try:
            return int(self._files.modified(self._path(path)).timestamp() * 1e9)
        except FileNotFoundError:
            return 0

    def size(self, path: str) -> int:
        """Raises FileNotFoundError."""
        return int(self._files.info(self._path(path), refresh=True)["size"])

    def put(self, local: str, path: str, moved: Moved) -> None:
        """Copy a file there. Raises StoreError: another number of bytes arrived."""
        size = os.path.getsize(local)
        try:
            self._files.put_file(local, self._path(path), callback=_callback(moved))
        except FileNotFoundError:
            if not os.path.exists(local):
                raise
            self._make_parent(path)
            self._files.put_file(local, self._path(path), callback=_callback(moved))
        if (arrived := self.size(path)) != size:
            raise StoreError(f"{shown(path)} has {arrived:,} bytes and should have {size:,}")

    def get(self, path: str, local: str, moved: Moved) -> None:
        """Copy a file here. Raises FileNotFoundError; StoreError: not all of it came."""
        size = self.size(path)
        self._files.get_file(self._path(path), local, callback=_callback(moved))
        if (arrived := os.path.getsize(local)) != size:
            raise StoreError(f"{arrived:,} bytes came of {shown(path)}, which has {size:,}")

    def write(self, path: str, data: bytes) -> None:
        """A small file."""
        try:
            self._files.pipe_file(self._path(path), data)
        except FileNotFoundError:
            self._make_parent(path)
            self._files.pipe_file(self._path(path), data)

    def remove(self, path: str) -> None:
        """It may be gone already."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(path))

    def below(self, path: str) -> list[str]:
        """All files below a directory, as paths relative to it."""
        self._files.invalidate_cache()
        root = self._path(path).rstrip("/")
        return [each[len(root) + 1 :] for each in self._files.find(root)]

    def _path(self, url: str) -> str:
        return str(self._files._strip_protocol(url))

    def _make_parent(self, url: str) -> None:
        """But never a bucket: a name that was misspelt would become one."""
        path = self._path(url)
        top = path[: path.index("/", 1)] if "/" in path[1:] else path
        if not self._files.exists(top):
            raise FileNotFoundError(f"{top} does not exist")
        self._files.makedirs(posixpath.dirname(path), exist_ok=True)


def said_by(error: BaseException) -> str:
    """What a library says, without what is a secret in it."""
    return without_secrets(f"{type(error).__name__}: {error}".rstrip(": "))


def refusal(url: str, error: BaseException, doing: str) -> StoreError:
    """`error` as a sentence for the user."""
    said = said_by(error)
    if is_refusal(error):
        hint = (
            "check the credentials on the executors (TFCluster.run(env=...), fsspec's "
            "configuration, the machine's role) and their rights to list, read, write and delete"
        )
    elif is_missing(error):
        hint = "check the name of the bucket, which has to exist"
    else:
        hint = "check that the executors reach the store"
    return StoreError(f"model_dir {shown(url)} cannot be used: {doing} failed ({said}): {hint}")


def _callback(moved: Moved) -> Any:
    from fsspec.callbacks import Callback

    return Callback(hooks={"moved": lambda *_, **__: moved()})
