"""Members' files as they are kept on the driver: one directory for each member.

Nothing that was there before is touched: a file whose name is taken, by another attempt of the
member or by another run, goes beside it as ``name.2``. What members name is not trusted.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.core.file_values import MAX_BYTES, MAX_FILES, Held, Piece, path_problem
from coordinator.core.received_file import ReceivedFile
from coordinator.file_client import Origin

_MOST_NAMESAKES = 10_000
_OF_ONE_FILE = (
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP,
    errno.EFBIG,
)  # fmt: skip
_OF_A_NEW_FILE = (*_OF_ONE_FILE, errno.EINVAL, errno.EACCES, errno.EPERM)
"""Errors that others do not have: a name that this file system does not take, a directory that is
somebody else's. To try again would keep all other files waiting."""


@dataclass(slots=True)
class _File:
    """``path`` None: it is acknowledged and not kept."""

    path: Path | None
    received: ReceivedFile = field(default_factory=ReceivedFile)


class MirroredFiles:
    """Below ``directory``. ``complaints``: what is not kept, to be taken by whoever tells people.
    ``changed``: what was written, to be taken by whoever copies it. Use in one thread."""

    def __init__(
        self, directory: Path, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES
    ) -> None:
        self.directory = directory
        self.complaints: list[str] = []
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._files: dict[Origin, dict[str, _File]] = {}

    def take(self, origin: Origin, piece: Piece) -> Held:
        """Writes what is new in it. Raises OSError for a disk that is full or broken; the same
        piece may come again then."""
        files = self._files.setdefault(origin, {})
        file = files.get(piece.path)
        if file is None:
            file = self._begin(origin, piece.path, files)
            if len(files) < self._max_files:  # else it is refused, and will be again
                files[piece.path] = file
        held: Held | None = None
        try:
            if file.path is not None:
                held = self._keep(origin, file, file.path, piece)
        except OSError as error:
            if error.errno not in _OF_ONE_FILE:
                raise
            self._refuse(origin, file, piece.path, str(error.strerror))
        return held or Held(piece.path, piece.version, piece.offset + len(piece.data))

    def _keep(self, origin: Origin, file: _File, path: Path, piece: Piece) -> Held | None:
        """None: it is more than may be. Raises OSError."""
        path = self._found(origin, file, path, piece.path)
        take = file.received.take(piece.version, piece.offset, len(piece.data))
        if take is None:
            # A newer version that we have not seen the beginning of: all of it is missing.
            is_newer = piece.version > file.received.version
            there = 0 if is_newer else file.received.size
            return Held(piece.path, piece.version, there, missed=True)
        others = [each for each in self._files[origin].values() if each.path and each is not file]
        kept = sum(each.received.size for each in others)
        if kept + take.at + take.length > self._max_bytes:
            self._refuse(origin, file, piece.path, f"more than {self._max_bytes:,} bytes")
            return None
        if not take.changes_nothing:
            _write(path, take.at, piece.data[take.skip :], restarts=take.restarts)
        file.received.took(take)
        return Held(piece.path, file.received.version, file.received.size)

    def _begin(self, origin: Origin, path: str, files: dict[str, _File]) -> _File:
        problem = path_problem(path)
        if not problem and len(files) >= self._max_files:
            problem = f"more than {self._max_files:,} files"
        try:
            if not problem:
                return _File(self._new_file(origin, path))
        except OSError as error:
            if error.errno not in _OF_A_NEW_FILE:
                raise
            problem = str(error.strerror)
        except UnicodeEncodeError:
            problem = "this machine's locale has no such characters"
        file = _File(None)
        self._refuse(origin, file, path, problem)
        return file

    def _new_file(self, origin: Origin, path: str) -> Path:
        """Raises OSError."""
        wanted = self.directory / str(origin.member).replace(":", "-") / path
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, _MOST_NAMESAKES):
            found = wanted if number == 1 else wanted.with_name(f"{wanted.name}.{number}")
            try:
                os.close(os.open(found, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                continue
            return found
        raise FileExistsError(17, f"{_MOST_NAMESAKES:,} files of this name are there")

    def _refuse(self, origin: Origin, file: _File, path: str, why: str) -> None:
        file.path = None
        self.complaints.append(f"{origin.member}: {ascii(path)[:200]} is not kept: {why}")

    def _found(self, origin: Origin, file: _File, kept: Path, path: str) -> Path:
        """Somebody may have deleted it: then it begins anew. Raises OSError."""
        try:
            if kept.stat().st_size >= file.received.size:
                return kept
        except FileNotFoundError:
            kept = file.path = self._new_file(origin, path)
        file.received.size = 0
        return kept


def _write(path: Path, at: int, data: bytes, *, restarts: bool) -> None:
    """Raises OSError; what was written of it is written again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if restarts:
            os.ftruncate(descriptor, 0)
        while data:
            written = os.pwrite(descriptor, data, at)
            data, at = data[written:], at + written
    finally:
        os.close(descriptor)
