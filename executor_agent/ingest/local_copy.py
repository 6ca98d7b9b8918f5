"""One file's copy on the local disk: its unfinished part, what is known of it, whose turn it is.

A folder of books beside the copies has for each of them three files, whatever its name is: the part
that has come so far, a record of which content of which file it is, and a lock. The copy itself
appears by a rename when it is whole. Nothing is flushed to the disk: after a crash of the machine
it is the size, and a checksum where there is one, that tell.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from executor_agent.ingest.errors import FULL, DiskFull, FetchError
from executor_agent.ingest.names import BOOKS, shown
from executor_agent.ingest.store import Remote

_CHUNK = 1 << 20
_WRITE = 256 << 10  # in larger writes ext4 was seen to spend ten times the processor time


@dataclass(frozen=True, slots=True)
class Record:
    """Which content it is that lies here. `origin`: a digest of the url, which may have a secret in
    it. `checksum`: the user's, which it was found to have."""

    origin: str
    url: str
    size: int | None
    version: str | None
    checksum: str | None = None

    @classmethod
    def of(cls, remote: Remote, checksum: str | None = None) -> "Record":
        """What a copy of this content has to say."""
        url = remote.source.url
        origin = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()
        return cls(origin, shown(url), remote.size, remote.version, checksum)

    def is_of(self, remote: Remote) -> bool:
        """Whether it is surely the content that the store has now."""
        other = Record.of(remote)
        # Not the origin: a web address may be signed anew each time.
        mine = (self.url, self.size, self.version)
        return self.version is not None and mine == (other.url, other.size, other.version)


class LocalCopy:
    """Of one remote file. All but `lock`, `missing` and `check_origin` need the lock."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
        self._books = folder / BOOKS
        self._part = self._books / f"{digest}.part"
        self._part_record = self._books / f"{digest}.part.json"
        self._record = self._books / f"{digest}.json"
        self._lock = self._books / f"{digest}.lock"

    def prepare(self) -> None:
        """Make the folders."""
        with local_disk(self.path):
            self._books.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder of that name")

    def check_origin(self, remote: Remote) -> None:
        """Raises ValueError: what lies here is the copy of another file, or none of ours."""
        if not os.path.lexists(self.path):
            return
        # Between the last steps of a copy its part's record alone is there.
        record = _read(self._record) or _read(self._part_record)
        if record is None:
            raise ValueError(
                f"{self.path} is there and was not put there by ctx.fetch: remove it, or fetch "
                "into another directory (to=...)"
            )
        if not record.is_of(remote) and record.origin != Record.of(remote).origin:
            raise ValueError(
                f"{self.path} is already the copy of {record.url}, and {shown(remote.source.url)} "
                "would replace it: fetch the two into different directories (to=...)"
            )

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Whether it is ours until the end of the block. Among processes and threads, on one host
        or on a shared file system that knows locks."""
        with local_disk(self.path):
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        is_ours = False
        try:
            with local_disk(self.path):
                is_ours = _locked(descriptor)
            yield is_ours
        finally:
            with suppress(OSError):
                # In so many words: a process that was forked meanwhile has the descriptor, too.
                if is_ours:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def is_complete(self, remote: Remote) -> bool:
        """Whether the copy is there, of the content that the store has now."""
        record = _read(self._record)
        if record is None or not record.is_of(remote):
            return False
        return self._size() == (remote.size if remote.size is not None else self._size())

    def was_checked(self, checksum: str) -> bool:
        """Whether the copy was found to have this checksum."""
        record = _read(self._record)
        return record is not None and record.checksum == checksum

    def missing(self, remote: Remote) -> int:
        """Bytes that are still to come, as far as the store says how many there are."""
        if remote.size is None or self.is_complete(remote):
            return 0
        return remote.size - self.part_size(remote)

    def part_size(self, remote: Remote) -> int:
        """How much of this content is there from an earlier try."""
        record = _read(self._part_record)
        if record is None or remote.size is None or not record.is_of(remote):
            return 0
        size = self.part_bytes()
        return size if size <= remote.size else 0

    def part_bytes(self) -> int:
        """How long the part is, whatever it is of."""
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, remote: Remote) -> None:
        """An empty part, for this content. The record comes first: a part is never taken for
        another content's."""
        with local_disk(self.path):
            self._part.unlink(missing_ok=True)
            _write(self._part_record, Record.of(remote))

    @contextmanager
    def appending(self) -> Iterator["Part"]:
        """The part, open at its end."""
        with local_disk(self.path):
            descriptor = os.open(
                self._part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        try:
            yield Part(descriptor, self.path)
        finally:
            os.close(descriptor)

    def digest_part(self, digests: list["hashlib._Hash"]) -> None:
        """Feed what is there to the digests."""
        _digest(self._part, digests)

    def digest_copy(self, digests: list["hashlib._Hash"]) -> None:
        """The same for the whole copy."""
        _digest(self.path, digests)

    def finish(self, remote: Remote, checksum: str | None) -> None:
        """The part becomes the copy. An old copy's record goes first and the new one's comes last:
        a record never stands beside another content."""
        with local_disk(self.path):
            self._record.unlink(missing_ok=True)
            os.replace(self._part, self.path)
            _write(self._record, Record.of(remote, checksum))
            self._part_record.unlink(missing_ok=True)

    def note_checksum(self, remote: Remote, checksum: str) -> None:
        """The copy has this checksum."""
        with local_disk(self.path):
            _write(self._record, Record.of(remote, checksum))

    def discard(self) -> None:
        """No part is left."""
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
            self._part_record.unlink(missing_ok=True)

    def _size(self) -> int | None:
        try:
            return self.path.stat().st_size
        except OSError:
            return None


class Part:
    """A part that grows."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def append(self, data: bytes) -> None:
        """All of it. Raises DiskFull, FetchError."""
        with local_disk(self._path):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest[:_WRITE]) :]


@contextmanager
def local_disk(path: Path) -> Iterator[None]:
    """What the local disk refuses is another matter than what the store does.

    Raises:
        DiskFull: no space is left.
        FetchError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(str(path)) from error
        raise FetchError(f"{path} cannot be written: {error}") from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(path: Path, digests: list["hashlib._Hash"]) -> None:
    if not digests:
        return
    with local_disk(path), open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for each in digests:
                each.update(chunk)


def _read(path: Path) -> Record | None:
    """None where there is none that can be understood."""
    try:
        return Record(**json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError):
        return None


def _write(path: Path, record: Record) -> None:
    """Whole or not at all. Under the file's lock, so nobody else writes it."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(json.dumps(asdict(record)))
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
