"""What a journal has in it, for people: looked at without changing it, also beside its daemon."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator import journal_file, journal_lock, journal_schema
from coordinator.journal_values import JournalUnusable

_MOST_PROBLEMS = 20
EXPORT_FORMAT = 1


@dataclass(slots=True)
class Report:
    """What was found. Sound when there are no ``problems``; what could not be read is empty."""

    path: Path
    problems: list[str] = field(default_factory=list)
    facts: journal_file.Facts | None = None
    records: dict[str, int] = field(default_factory=dict)  # their number by kind
    events: int = 0
    event_ids: tuple[int, int] | None = None  # the first and the last
    event_times: tuple[float, float] | None = None
    size: int = 0  # bytes, as that of the WAL
    wal_size: int = 0
    holder: str = ""  # who has it open, in words

    @property
    def is_sound(self) -> bool:
        return not self.problems


def check(path: Path) -> Report:
    """Never raises for what is wrong with the journal: it is what the report is for."""
    path = path.expanduser().resolve()
    report = Report(path, holder=journal_lock.holder(path))
    try:
        with _opened(path) as connection:
            report.facts = journal_file.read_facts(path, connection)
            _count(connection, report)
            report.problems += _damage(path, connection)
    except JournalUnusable as error:
        report.problems.append(str(error))
    with suppress(OSError):
        report.size = path.stat().st_size
        report.wal_size = path.with_name(path.name + "-wal").stat().st_size
    return report


def export(path: Path) -> Iterator[dict[str, Any]]:
    """A header, all records and all events, as of one instant. Those of an older version are given
    as the newest would have them. Raises JournalUnusable."""
    path = path.expanduser().resolve()
    with _opened(path) as connection:
        facts = journal_file.read_facts(path, connection)
        if facts.schema_version == journal_schema.newest_version():
            yield from _lines(path, connection, facts)
            return
        with tempfile.TemporaryDirectory(prefix="tflease-journal-") as folder:
            upgraded = Path(folder, "journal.sqlite")
            journal_file.copy(connection, upgraded)
            with closing(journal_file.connect(upgraded)) as changed:
                journal_schema.migrate(changed, facts.schema_version)
                yield from _lines(path, changed, facts)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """One picture of it: what is written meanwhile is not seen."""
    if not journal_file.refuse_unfit(path, for_writing=False):
        raise JournalUnusable(f"there is no journal {path}: name the file that the daemon uses")
    try:
        with closing(journal_file.connect_read_only(path)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise journal_file.unusable(path, error) from None
    except OSError as error:
        raise JournalUnusable(
            f"the journal {path} cannot be copied: {error.strerror}: free some space where "
            "temporary files go (TMPDIR)"
        ) from None


def _count(connection: sqlite3.Connection, report: Report) -> None:
    counted = connection.execute("SELECT kind, count(*) FROM records GROUP BY kind ORDER BY kind")
    report.records = dict(counted.fetchall())
    (report.events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    if report.events:
        row = connection.execute("SELECT min(id), max(id), min(at), max(at) FROM events").fetchone()
        report.event_ids, report.event_times = row[:2], row[2:]


def _damage(path: Path, connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})").fetchall()
    problems = [str(text) for (text,) in found if text != "ok"]
    for kind, key, value in connection.execute("SELECT kind, key, value FROM records"):
        try:
            is_object = isinstance(json.loads(value), dict)
        except ValueError:
            is_object = False
        if not is_object and len(problems) < _MOST_PROBLEMS:
            problems.append(f"the record {kind} {key} is no JSON object")
    if problems:
        problems.append(f"the journal {path} is damaged: see {journal_file.HELP}")
    return problems


def _lines(
    path: Path, connection: sqlite3.Connection, facts: journal_file.Facts
) -> Iterator[dict[str, Any]]:
    yield {
        "type": "journal",
        "format": EXPORT_FORMAT,
        "path": str(path),
        "schema_version": facts.schema_version,
        "state_version": facts.state_version,
        "coordinator_id": facts.coordinator_id,
        "created_at": facts.created_at,
    }
    query = "SELECT kind, key, value FROM records ORDER BY kind, key"
    for kind, key, value in connection.execute(query):
        try:
            record = json.loads(value)
        except ValueError:
            raise JournalUnusable(
                f"the journal {path} is damaged: the record {kind} {key} is no JSON; see "
                f"{journal_file.HELP}"
            ) from None
        yield {"type": "record", "kind": kind, "key": key, "value": record}
    names = ("id", "at", "run_id", "subject", "kind", "text")
    for row in connection.execute(f"SELECT {', '.join(names)} FROM events ORDER BY id"):
        yield {"type": "event", **dict(zip(names, row, strict=True))}
