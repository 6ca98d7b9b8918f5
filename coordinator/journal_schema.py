"""The tables of the journal, and how a file of an older version becomes one of this version.

The table ``meta`` has the same shape in every version, so that any version can say which one a
file has. Everything else may change, by one more entry in MIGRATIONS.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

APPLICATION_ID = 0x74_66_6C_73
"""In the header of the file ("tfls"): SQLite's own mark for whose database it is."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1
        # A row id of its own: values of some kilobytes would make an index over (kind, key) that
        # holds them slow.
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            UNIQUE (kind, key)
        )""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            run_id TEXT NOT NULL,
            subject TEXT NOT NULL,
            kind TEXT NOT NULL,
            text TEXT NOT NULL
        )""",
        "CREATE INDEX events_of_run ON events (run_id) WHERE run_id <> ''",
    ),
)
"""What makes version n+1 of version n; a new file goes through all of them. Entries are never
changed once a release has them, only added."""

SET_META = (
    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = "
    "excluded.value"
)


def newest_version() -> int:
    """The version of the files that this program writes."""
    return len(MIGRATIONS)


def create(connection: sqlite3.Connection, *, now: float, state_version: int) -> None:
    """In an empty database. Raises sqlite3.Error."""
    # Before anything is written: later it has no effect.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    facts = {
        "schema_version": "0",
        "state_version": str(state_version),
        "coordinator_id": uuid.uuid4().hex,
        "created_at": repr(now),
    }
    with transaction(connection):
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        connection.executemany(SET_META, facts.items())
        _migrate(connection, 0)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """From ``version`` to the newest, all or nothing. Raises sqlite3.Error."""
    with transaction(connection):
        _migrate(connection, version)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(SET_META, ("schema_version", str(newest_version())))


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Raises sqlite3.Error, also when the database has no such table."""
    return dict(connection.execute("SELECT key, value FROM meta"))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Committed at the end, undone by any exception. A commit that fails is undone, too."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has done it by itself after some errors, a full disk among them.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
