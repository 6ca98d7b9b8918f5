"""The file of the journal: what may be opened, and what is said when it may not.

Nothing here changes a file that is refused. Nothing opens the file past SQLite either: closing any
descriptor of a file drops all POSIX locks that the process has on it, SQLite's included.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from coordinator import journal_schema
from coordinator.journal_values import JournalUnusable

HELP = "docs/journal.md"
_OTHERS_WRITE = 0o022
_BUSY_TIMEOUT = 5.0
_WAL_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table ``meta`` says, and the next number of an event."""

    schema_version: int
    state_version: int
    coordinator_id: str
    created_at: float
    next_event_id: int = 1


# -- what may be opened ----------------------------------------------------------------------------


def refuse_unfit(path: Path, *, for_writing: bool = True) -> bool:
    """Whether there is a file. Raises JournalUnusable when it cannot be ours, by what the folder
    says of it; its content is not looked at."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalUnusable(f"the journal {path} cannot be looked at: {error.strerror}") from None
    if stat.S_ISDIR(found.st_mode):
        raise JournalUnusable(
            f"{path} is a folder: name a file for the journal, in it or elsewhere"
        )
    if not stat.S_ISREG(found.st_mode):
        raise JournalUnusable(f"{path} is no regular file: name another one for the journal")
    if not os.access(path, os.R_OK, effective_ids=True):
        raise JournalUnusable(
            f"the journal {path} cannot be read: permission denied for uid {os.geteuid()}; it "
            f"belongs to uid {found.st_uid}"
        )
    if for_writing:
        _refuse_unwritable(path, found)
    return True


def _refuse_unwritable(path: Path, found: os.stat_result) -> None:
    for place in (path, path.parent):  # SQLite makes files beside it
        _refuse_read_only(place)
        if not os.access(place, os.W_OK, effective_ids=True):
            raise JournalUnusable(
                f"the journal {path} cannot be written: permission denied for uid "
                f"{os.geteuid()}: {place}"
            )
    if found.st_uid != os.geteuid():
        raise JournalUnusable(
            f"the journal {path} belongs to another user (uid {found.st_uid}, this process has "
            f"{os.geteuid()}): start as that user, or name another journal"
        )
    if stat.S_IMODE(found.st_mode) & _OTHERS_WRITE:
        raise JournalUnusable(
            f"the journal {path} can be written by others (mode "
            f"{stat.S_IMODE(found.st_mode):04o}): look whether it is still yours, then "
            f"chmod 600 {path}"
        )


def _refuse_read_only(place: Path) -> None:
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise JournalUnusable(
            f"{place} is on a read-only file system: mount it writable, or name a journal elsewhere"
        )


def read_facts(path: Path, connection: sqlite3.Connection) -> Facts:
    """Raises JournalUnusable when the file is no journal, or one of a newer version."""
    try:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if mark != journal_schema.APPLICATION_ID:
            raise JournalUnusable(
                f"{path} is not a journal of tflease, and is left as it is: name another file"
            )
        meta = journal_schema.read_meta(connection)
        version = int(meta["schema_version"])
        if version > journal_schema.newest_version():
            raise JournalUnusable(
                f"the journal {path} has version {version}, and this tflease knows versions up to "
                f"{journal_schema.newest_version()}: start the newer tflease that wrote it, or "
                f"restore the copy from before its upgrade ({HELP})"
            )
        (last,) = connection.execute("SELECT max(id) FROM events").fetchone()
        return Facts(
            schema_version=version,
            state_version=int(meta["state_version"]),
            coordinator_id=meta["coordinator_id"],
            created_at=float(meta["created_at"]),
            next_event_id=(last or 0) + 1,
        )
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    except (KeyError, ValueError) as error:
        raise JournalUnusable(
            f"the journal {path} is damaged: its table meta is incomplete ({error}); see {HELP}"
        ) from None


def refuse_damaged(path: Path, connection: sqlite3.Connection) -> None:
    """Raises JournalUnusable naming the first damage, if there is any."""
    try:
        (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    if first != "ok":
        text = first.splitlines()[-1]  # below "*** in database main ***"
        raise JournalUnusable(f"the journal {path} is damaged ({text}): see {HELP}")


def unusable(path: Path, error: sqlite3.Error) -> JournalUnusable:
    """What SQLite says, in a sentence that says what to do."""
    # Extended codes begin with the name of the plain one.
    name = getattr(error, "sqlite_errorname", "")
    match name.split("_")[1] if "_" in name else "":
        case "FULL":
            text = "there is no room for it: free some space on its file system"
        case "NOTADB":
            text = "it is no SQLite database, and is left as it is: name another file"
        case "CORRUPT":
            text = f"it is damaged ({error}): see {HELP}"
        case "BUSY" | "LOCKED":
            text = "another program has locked it: end that program"
        case "CANTOPEN" | "PERM" | "READONLY" | "AUTH":
            text = f"{error}: look at the permissions of the file and its folder"
        case "IOERR":
            text = f"{error} ({name}): look at the disk and the kernel's log"
        case _:
            text = f"{error} ({name or type(error).__name__}): see {HELP}"
    return JournalUnusable(f"the journal {path} cannot be used: {text}")


# -- making and opening it -------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """Of the journal, for its user alone, where it is missing."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_read_only(path.parent)
    except OSError as error:
        raise JournalUnusable(
            f"the folder {path.parent} for the journal cannot be made: {error.strerror}: name "
            "another file"
        ) from None


def create(path: Path, *, now: float, state_version: int) -> None:
    """A new journal: all of it or nothing, whenever we are killed. The caller holds the lock."""
    leftover = path.with_name(path.name + "-wal")
    if leftover.exists() and leftover.stat().st_size:
        # SQLite would apply it to the new file, whatever it belongs to.
        raise JournalUnusable(
            f"the journal {path} is missing, but {leftover} is there, with what was written last: "
            f"put the file back, or move {leftover} away ({HELP})"
        )
    try:
        draft = _make_draft(path)
        # Not yet with a WAL: that would write the first page, and auto_vacuum comes before it.
        with closing(_connect(draft, "mode=rw")) as connection:
            journal_schema.create(connection, now=now, state_version=state_version)
        connect(draft).close()
        os.link(draft, path)  # never over one that is there
        discard_draft(path)
        fsync_folder(path)
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    except OSError as error:
        raise JournalUnusable(
            f"the journal {path} cannot be made: {error.strerror}: name another file, or free some "
            "space"
        ) from None


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """A copy of the whole database, safe on disk when this returns. Replaces an older copy."""
    draft = _make_draft(target)
    with closing(sqlite3.connect(draft)) as copied:
        connection.backup(copied)
    draft.replace(target)
    fsync_folder(target)


def discard_draft(path: Path) -> None:
    """Of a journal or a copy: what a process left that was killed while it made one."""
    draft = _draft(path)
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _make_draft(path: Path) -> Path:
    """An empty file for its user alone, to be renamed when it is whole."""
    discard_draft(path)
    draft = _draft(path)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return draft


def connect(path: Path) -> sqlite3.Connection:
    """For writing. Never makes the file. Raises sqlite3.Error."""
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives a loss of power
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Works beside a writer. Changes nothing in the file and its WAL. Raises sqlite3.Error."""
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        connection.close()
        # Beside it SQLite wants to make files. Where it cannot, and none are there, the file alone
        # is all there is.
        if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists():
            raise
        return _connect(path, "mode=ro&immutable=1")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?{options}",
        uri=True,
        isolation_level=None,  # transactions are begun and ended in words
        check_same_thread=False,
        timeout=_BUSY_TIMEOUT,
    )


def fsync_folder(path: Path) -> None:
    """A new name is only then safe against a loss of power."""
    with suppress(OSError):  # some file systems do not know it
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
