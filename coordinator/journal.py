"""The journal: what a coordinator must still know after it was killed, in one SQLite file.

It holds records, which are the coordinator's present state (one JSON object each, under a kind and
a key), and events, which tell people what has happened. It knows nothing of what they mean.
docs/journal.md describes the file; journal_schema its tables, journal_file what may be opened,
journal_lock by whom, journal_writer how it is written.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from coordinator import journal_file, journal_schema
from coordinator.journal_lock import Lock, lock_path
from coordinator.journal_values import EventQuery, EventRecord, JournalUnusable, Key, Retention
from coordinator.journal_writer import Batch, Writer

__all__ = [
    "EventQuery",
    "EventRecord",
    "Journal",
    "JournalUnusable",
    "Key",
    "Retention",
    "default_journal_path",
]

PATH_VARIABLE = "TFLEASE_JOURNAL"
"""Names the file."""

_PORTION = 1000  # records that are parsed in one go
_GAP = ",\nNaN,"  # between them


def default_journal_path() -> Path:
    """$TFLEASE_JOURNAL, or else ``tflease/journal.sqlite`` in the user's folder for state."""
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    folder = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return folder / "tflease" / "journal.sqlite"


class Journal:
    """An open journal. One process has it at a time. All methods may be called from any thread.

    ``coordinator_id`` was made with the file and stays. ``state_version`` is that of the records.
    ``next_event_id``: larger than any id in the file when it was opened.
    """

    def __init__(self, path: Path, lock: Lock, facts: journal_file.Facts, writer: Writer) -> None:
        """For ``open``."""
        self.path = path
        self.coordinator_id = facts.coordinator_id
        self.created_at = facts.created_at
        self.state_version = facts.state_version
        self.next_event_id = facts.next_event_id
        self._lock = lock
        self._writer = writer

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        retention: Retention = Retention(),  # noqa: B008  (a frozen value)
        state_version: int = 1,
    ) -> Journal:
        """Makes the file, for its user alone, where there is none; brings an older one up to date,
        after a copy of it. ``state_version``: of the records of a new file, and the newest that the
        caller can read.

        Raises JournalUnusable, saying what to do: it is no journal, damaged, of a newer version, in
        use by another process, unsafe, or cannot be read or written. It is left as it is then.
        """
        path = path.expanduser().resolve()
        # The lock first, where it exists already: see journal_file. Beside a file that is not ours
        # none is made.
        lock = Lock(path) if lock_path(path).exists() else None
        try:
            if journal_file.refuse_unfit(path):
                _read_sound(path, state_version)
            else:
                journal_file.make_folder(path)
            lock = lock or Lock(path)
            facts = _prepare(path, clock(), state_version)
            lock.sign()
            try:
                writer = Writer(
                    path, journal_file.connect(path), retention, clock, lock.is_in_place
                )
            except sqlite3.Error as error:
                raise journal_file.unusable(path, error) from None
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        return cls(path, lock, facts, writer)

    def load(self) -> dict[Key, dict[str, Any]]:
        """All records. Raises JournalUnusable."""
        records: dict[Key, dict[str, Any]] = {}
        try:
            with closing(journal_file.connect_read_only(self.path)) as connection:
                cursor = connection.execute("SELECT value, kind, key FROM records")
                while rows := cursor.fetchmany(_PORTION):
                    texts, *keys = zip(*rows, strict=True)
                    values = _all_parsed(texts) or [_parsed(self.path, *row) for row in rows]
                    records.update(zip(zip(*keys, strict=True), values, strict=True))
        except sqlite3.Error as error:
            raise journal_file.unusable(self.path, error) from None
        return records

    def write(
        self,
        put: Mapping[Key, Mapping[str, Any]],
        removed: Collection[Key],
        events: Sequence[EventRecord],
        *,
        state_version: int | None = None,
    ) -> Future[None]:
        """All of it or nothing, and safe against a loss of power when the future is done. Returns
        at once; the values must not be changed afterwards. What is both removed and put is put.

        The future fails with JournalUnusable when it cannot be written (no room, for example), and
        everything that was handed over after it and is not yet written fails with it. The same
        again may be written then, in the same order. TypeError or ValueError: it is no plain JSON.
        """
        done = self._writer.submit(Batch(put, removed, events, state_version))
        if state_version is not None:
            done.add_done_callback(lambda done: self._take_version(done, state_version))
        return done

    def _take_version(self, done: Future[None], state_version: int) -> None:
        if done.exception() is None:
            self.state_version = state_version

    def events(self, query: EventQuery) -> list[EventRecord]:
        """In the order of their ids. Sees what is committed. Raises JournalUnusable."""
        statement, values = _selection(query)
        try:
            with closing(journal_file.connect_read_only(self.path)) as connection:
                found = [EventRecord(*row) for row in connection.execute(statement, values)]
        except sqlite3.Error as error:
            raise journal_file.unusable(self.path, error) from None
        return found[::-1] if query.is_latest else found

    def close(self) -> None:
        """On return everything that was handed over is done, and the file is free. Idempotent."""
        self._writer.close()
        self._lock.close()


def _all_parsed(texts: Sequence[str]) -> list[Any]:
    """Many texts of JSON in one go, which takes less time than one by one. Empty: some may be none.

    What stands between two of them can stand in none: JSON has no NaN, and no string a line break.
    So if each gap is found where it belongs, no text has reached into the next one.
    """
    gap, found = object(), list[str]()

    def see(constant: str) -> object:
        found.append(constant)
        return gap

    try:
        parsed = json.loads(f"[{_GAP.join(texts)}]", parse_constant=see)
    except (TypeError, ValueError):
        return []
    gaps = [gap] * (len(texts) - 1)
    is_sound = len(parsed) == len(texts) + len(gaps) == len(texts) + len(found)
    return parsed[::2] if is_sound and parsed[1::2] == gaps else []


def _parsed(path: Path, text: str, kind: str, key: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise JournalUnusable(
            f"the journal {path} is damaged: the record {kind} {key} is no JSON; see "
            f"{journal_file.HELP}"
        ) from None


def _prepare(path: Path, now: float, state_version: int) -> journal_file.Facts:
    """A file that can be written: made, or brought up to date. The caller holds the lock."""
    if journal_file.refuse_unfit(path):
        with suppress(OSError):
            journal_file.discard_draft(path)
    else:
        journal_file.create(path, now=now, state_version=state_version)
    facts = _read_sound(path, state_version, look_for_damage=True)
    if facts.schema_version == journal_schema.newest_version():
        return facts
    copy = path.with_name(f"{path.name}.before-v{journal_schema.newest_version()}")
    try:
        with closing(journal_file.connect_read_only(path)) as connection:
            journal_file.copy(connection, copy)
        with closing(journal_file.connect(path)) as connection:
            journal_schema.migrate(connection, facts.schema_version)
    except sqlite3.Error as error:
        reason = journal_file.unusable(path, error)
        raise JournalUnusable(
            f"{reason}. It was to be brought from version {facts.schema_version} to version "
            f"{journal_schema.newest_version()}, and is as it was"
        ) from None
    except OSError as error:
        raise JournalUnusable(
            f"no copy of the journal {path} could be made before its upgrade, which is why it was "
            f"not begun: {error.strerror}: {copy}"
        ) from None
    return _read_sound(path, state_version)


def _read_sound(
    path: Path, state_version: int, *, look_for_damage: bool = False
) -> journal_file.Facts:
    """Changes nothing."""
    try:
        with closing(journal_file.connect_read_only(path)) as connection:
            facts = journal_file.read_facts(path, connection)
            if facts.state_version > state_version:
                raise JournalUnusable(
                    f"the records of the journal {path} have version {facts.state_version}, and "
                    f"this tflease knows versions up to {state_version}: start the newer tflease "
                    f"that wrote them, or restore an older copy ({journal_file.HELP})"
                )
            if look_for_damage:
                journal_file.refuse_damaged(path, connection)
    except sqlite3.Error as error:
        raise journal_file.unusable(path, error) from None
    return facts


def _selection(query: EventQuery) -> tuple[str, list[object]]:
    conditions, values = ["id > ?"], list[object]([query.after_id])

    def restrict(condition: str, *more: object) -> None:
        conditions.append(condition)
        values.extend(more)

    if query.run_id:
        restrict("run_id = ? AND run_id <> ''", query.run_id)
    if query.since is not None:
        restrict("at >= ?", query.since)
    if query.until is not None:
        restrict("at <= ?", query.until)
    if query.kind:
        restrict("(kind = ? OR substr(kind, 1, ?) = ?)", query.kind, len(query.kind) + 1,
                 query.kind + ".")  # fmt: skip
    if query.text:
        pattern = f"%{''.join(chr(92) + c if c in '%_' + chr(92) else c for c in query.text)}%"
        restrict("(text LIKE ? ESCAPE '\\' OR subject LIKE ? ESCAPE '\\')", pattern, pattern)
    order = "DESC" if query.is_latest else "ASC"
    values.append(query.limit)
    return (
        "SELECT id, at, run_id, subject, kind, text FROM events "
        f"WHERE {' AND '.join(conditions)} ORDER BY id {order} LIMIT ?",
        values,
    )
