"""The one thread that writes the journal.

What waits when it comes by is committed together: one fsync for all. Batches are written in the
order in which they were handed over, and when one cannot be, everything behind it fails with it:
the file holds what was handed over up to some batch, and nothing of what came later.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator import journal_file, journal_schema
from coordinator.journal_values import EventRecord, JournalUnusable, Key, Retention

_logger = logging.getLogger(__name__)

_MOST_BATCHES = 512  # in one transaction
_PORTION = 1000  # events that are deleted in one transaction
_PAGES = 256  # that are given back to the file system at once; so many stay for what comes next
_TIDY_INTERVAL = 600.0
_TIDY_AFTER = 500  # new events: fewer than a portion, so that deleting keeps up with writing

_PUT = (
    "INSERT INTO records (kind, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
)
_REMOVE = "DELETE FROM records WHERE kind = ? AND key = ?"
_TELL = "INSERT OR REPLACE INTO events (id, at, run_id, subject, kind, text) VALUES (?,?,?,?,?,?)"
_FORGET = (
    "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?) "
    "AND (id <= ? OR at < ?) AND id < ?"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written together or not at all. ``done`` is told how it went."""

    put: Mapping[Key, Mapping[str, Any]]
    removed: Collection[Key]
    events: Sequence[EventRecord]
    state_version: int | None = None
    done: Future[None] = field(default_factory=Future)


@dataclass(slots=True)
class _Group:
    """The rows of several batches; of several values of one record the last one counts."""

    values: dict[Key, str | None] = field(default_factory=dict)  # None: removed
    events: list[tuple[object, ...]] = field(default_factory=list)
    state_version: int | None = None

    def add(self, batch: Batch) -> None:
        """Raises TypeError or ValueError for what is not plain JSON, and is then as before."""
        values: dict[Key, str | None] = dict.fromkeys(batch.removed)
        values |= {key: _json(value) for key, value in batch.put.items()}
        events = [_row(event) for event in batch.events]
        self.values |= values
        self.events += events
        if batch.state_version is not None:
            self.state_version = batch.state_version


class Writer:
    """Owns the connection for writing. ``clock`` in Unix seconds. ``is_locked``: whether nobody
    else can have opened the journal."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        retention: Retention,
        clock: Callable[[], float],
        is_locked: Callable[[], bool] = lambda: True,
    ) -> None:
        self._path = path
        self._is_locked = is_locked
        self._connection = connection
        self._retention = retention
        self._clock = clock
        self._identity = _identity(path)
        self._changed = threading.Condition()
        self._waiting: list[Batch] = []  # guarded by _changed, as _is_closing
        self._is_closing = False
        self._told = 0  # events since the last look at the retention
        self._tidy_at = time.monotonic()
        # A daemon thread: an interpreter that ends does not wait for it, and SQLite bears that.
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> Future[None]:
        """Returns at once."""
        batch.done.set_running_or_notify_cancel()  # a commit under way is not called back
        with self._changed:
            if self._is_closing:
                batch.done.set_exception(JournalUnusable(f"the journal {self._path} is closed"))
            else:
                self._waiting.append(batch)
                self._changed.notify()
        return batch.done

    def close(self) -> None:
        """On return everything that was submitted is done, the WAL is merged into the file where
        nobody reads it, and the connection is closed. Idempotent."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        try:
            self._connection.execute("PRAGMA busy_timeout = 0").fetchall()  # wait for no reader
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.ProgrammingError:
            return  # closed before
        except sqlite3.Error as error:
            # The WAL stays, and whoever opens the file next reads it.
            _logger.warning("%s", journal_file.unusable(self._path, error))
        self._connection.close()

    # -- the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        while (batches := self._next()) is not None:
            if batches:
                self._write(batches)
            if self._told >= _TIDY_AFTER or time.monotonic() >= self._tidy_at:
                self._tidy()

    def _next(self) -> list[Batch] | None:
        """What to write now; nothing when it is time to tidy; None when all is done."""
        with self._changed:
            while not self._waiting:
                if self._is_closing:
                    return None
                patience = self._tidy_at - time.monotonic()
                if patience <= 0 or not self._changed.wait(patience):
                    return []
            taken, self._waiting = self._waiting[:_MOST_BATCHES], self._waiting[_MOST_BATCHES:]
            return taken

    def _write(self, batches: list[Batch]) -> None:
        group = _Group()
        written = 0
        problem: Exception | None = None
        try:
            for batch in batches:
                group.add(batch)
                written += 1
        except Exception as error:  # a bug of the caller; what came before it is written
            problem = error
        try:
            self._commit(group)
        except Exception as error:
            written = 0
            problem = error
            if isinstance(error, sqlite3.Error):
                problem = journal_file.unusable(self._path, error)
        for batch in batches[:written]:
            batch.done.set_result(None)
        if problem is not None:
            with self._changed:
                behind, self._waiting = self._waiting, []
            for batch in (*batches[written:], *behind):
                batch.done.set_exception(problem)

    def _commit(self, group: _Group) -> None:
        if _identity(self._path) != self._identity:
            # What we wrote would go into a file that nobody finds again.
            raise JournalUnusable(
                f"the journal {self._path} has been moved, removed or replaced while it was in "
                f"use: put it back, or restart ({journal_file.HELP})"
            )
        if not self._is_locked():
            raise JournalUnusable(
                f"the lock of the journal {self._path} has been removed, so that another process "
                f"may write it, too: end all but one of them ({journal_file.HELP})"
            )
        put = [(*key, value) for key, value in group.values.items() if value is not None]
        removed = [key for key, value in group.values.items() if value is None]
        with journal_schema.transaction(self._connection):
            self._connection.executemany(_REMOVE, removed)
            self._connection.executemany(_PUT, put)
            self._connection.executemany(_TELL, group.events)
            if group.state_version is not None:
                values = ("state_version", str(group.state_version))
                self._connection.execute(journal_schema.SET_META, values)
        self._told += len(group.events)

    def _tidy(self) -> None:
        """One portion; comes again at once while there is more to do."""
        self._told = 0
        try:
            is_done = not self._forget() and not self._give_back()
        except Exception as error:  # nothing is lost by it but room; this thread must go on
            why = error
            if isinstance(error, sqlite3.Error):
                why = journal_file.unusable(self._path, error)
            _logger.warning("old events stay: %s", why)
            is_done = True
        self._tidy_at = time.monotonic() + (_TIDY_INTERVAL if is_done else 0.0)

    def _forget(self) -> bool:
        """Whether there is more to delete. Ids grow with time, so the oldest come first."""
        (newest,) = self._connection.execute("SELECT max(id) FROM events").fetchone()
        if newest is None:
            return False
        oldest_at = self._clock() - self._retention.days * 86_400
        bounds = (_PORTION, newest - self._retention.rows, oldest_at, newest)
        return self._connection.execute(_FORGET, bounds).rowcount == _PORTION

    def _give_back(self) -> bool:
        """Whether there are more pages to give back."""
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        if free <= _PAGES:
            return False
        # It gives back one page a step, and `execute` takes one step of what returns no columns.
        self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        return bool(free > 2 * _PAGES)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _json(value: Mapping[str, Any]) -> str:
    # NaN and infinity are no JSON, and other readers of the file would stumble over them.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _row(event: EventRecord) -> tuple[object, ...]:
    texts = (event.run_id, event.subject, event.kind, event.text)
    return event.id, event.at, *(text.encode(errors="backslashreplace").decode() for text in texts)
