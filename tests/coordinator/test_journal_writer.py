"""Writing when there is no room, when the file is taken away, and for a very long time."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator import journal_file, journal_report
from coordinator.journal import EventQuery, EventRecord, Journal, JournalUnusable, Retention
from tests.integration.sentinel_helpers import eventually

DEADLINE = 60.0
DAY = 86_400.0
LARGE = "x" * 100_000


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    opened = []

    def open_(path: Path = tmp_path / "journal.sqlite", **options: Any) -> Journal:
        opened.append(Journal.open(path, **options))
        return opened[-1]

    yield open_
    for journal in opened:
        journal.close()


def connection_of(journal: Journal) -> sqlite3.Connection:
    return journal._writer._connection


def events(first: int, count: int, at: float = 0.0) -> list[EventRecord]:
    return [EventRecord(n, at, "", "", "test", f"event {n}") for n in range(first, first + count)]


def ids(journal: Journal) -> list[int]:
    return [each.id for each in journal.events(EventQuery(limit=10**9))]


# -- no room ---------------------------------------------------------------------------------------


def test_what_finds_no_room_can_be_written_again_when_there_is_some(
    open_journal: Callable[..., Journal],
) -> None:
    journal = open_journal()
    small = {("run", "small"): {}}
    journal.write(small, [], []).result(DEADLINE)
    limit = connection_of(journal).execute("PRAGMA page_count").fetchone()[0] + 10
    connection_of(journal).execute(f"PRAGMA max_page_count = {limit}").fetchall()
    batch = (
        {("run", "large"): {"text": LARGE}, ("run", "b"): {}},
        [("run", "small")],
        events(1, 1),
    )
    for _ in range(3):
        with pytest.raises(JournalUnusable, match="there is no room for it: free some space"):
            journal.write(*batch).result(DEADLINE)
        assert journal.load() == {("run", "small"): {}}, "nothing of it is there"
        assert ids(journal) == []
    journal.write({("run", "small"): {"n": 2}}, [], []).result(DEADLINE)
    connection_of(journal).execute("PRAGMA max_page_count = 100000").fetchall()
    journal.write(*batch).result(DEADLINE)
    assert journal.load() == batch[0]
    assert ids(journal) == [1]


def test_what_was_handed_over_after_a_failure_fails_too(
    open_journal: Callable[..., Journal],
) -> None:
    """So that the file holds what came first, and never something later without it."""
    journal = open_journal()
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        arrived.set()
        go_on.wait(DEADLINE)

    journal.write({("run", "0"): {}}, [], []).add_done_callback(hold)  # in the writer's thread
    assert arrived.wait(DEADLINE)
    futures = [
        journal.write({("run", "1"): {}}, [], []),
        journal.write({("run", "2"): {"x": object()}}, [], []),
        journal.write({("run", "3"): {}}, [], []),
        *(journal.write({("run", "4"): {"n": n}}, [], []) for n in range(600)),
    ]
    go_on.set()
    futures[0].result(DEADLINE)
    for future in futures[1:]:
        with pytest.raises(TypeError):
            future.result(DEADLINE)
    assert sorted(journal.load()) == [("run", "0"), ("run", "1")]
    journal.write({("run", "3"): {}}, [], []).result(DEADLINE)


def test_a_full_disk_loses_nothing_that_was_promised(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        journal = open_journal(folder / "journal.sqlite")
        promised: dict[tuple[str, str], dict[str, Any]] = {}
        number = 0
        while True:
            number += 1
            batch = {("run", str(number)): {"text": LARGE}, ("run", "last"): {"n": number}}
            try:
                journal.write(batch, [], events(number, 1)).result(DEADLINE)
            except JournalUnusable as error:
                assert "there is no room for it" in str(error)  # noqa: PT017
                break
            promised |= batch
        assert number > 1
        assert journal.load() == promised
        assert ids(journal) == list(range(1, number))
        ballast.unlink()
        journal.write(batch, [], events(number, 1)).result(DEADLINE)
        journal.close()
        assert journal_report.check(journal.path).is_sound
        journal = open_journal(journal.path)
        assert journal.load() == promised | batch
        journal.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- the file is taken away ------------------------------------------------------------------------


def test_a_file_that_was_moved_away_is_not_written_any_more(
    open_journal: Callable[..., Journal],
) -> None:
    """SQLite itself would go on writing into a file that nobody finds again."""
    journal = open_journal()
    aside = journal.path.with_name("aside")
    journal.path.rename(aside)
    with pytest.raises(JournalUnusable, match="moved, removed or replaced while it was in use"):
        journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
    journal.path.write_bytes(b"another file")
    with pytest.raises(JournalUnusable, match="moved, removed or replaced"):
        journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
    aside.rename(journal.path)
    journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
    assert journal.load() == {("run", "a"): {}}


# -- for a long time -------------------------------------------------------------------------------


def test_events_of_long_ago_are_forgotten(open_journal: Callable[..., Journal]) -> None:
    now = [10 * DAY]
    journal = open_journal(clock=lambda: now[0], retention=Retention(days=5))
    journal.write({}, [], events(1, 3000, at=1 * DAY)).result(DEADLINE)
    journal.write({}, [], events(3001, 500, at=7 * DAY)).result(DEADLINE)
    eventually(lambda: len(ids(journal)) == 500, "the old events to go")
    assert ids(journal)[0] == 3001
    journal.close()
    now[0] += 10 * DAY
    journal = open_journal(clock=lambda: now[0], retention=Retention(days=5))
    eventually(lambda: ids(journal) == [3500], "all but the newest to go")
    assert journal.next_event_id == 3501


def test_events_beyond_a_number_are_forgotten(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal(retention=Retention(rows=100), clock=lambda: 0.0)
    for first in range(1, 5001, 1000):
        journal.write({}, [], events(first, 1000)).result(DEADLINE)
    eventually(lambda: len(ids(journal)) == 100, "the oldest events to go")
    assert ids(journal) == list(range(4901, 5001))


@pytest.mark.slow
def test_room_is_given_back_when_much_has_gone(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    keys = [("run", str(n)) for n in range(200)]
    journal.write({key: {"text": LARGE} for key in keys}, [], []).result(DEADLINE)
    journal.close()
    large = journal.path.stat().st_size
    assert large > 200 * len(LARGE)
    journal = open_journal()
    journal.write({}, keys, events(1, 500)).result(DEADLINE)

    def free() -> int:
        with closing(journal_file.connect_read_only(journal.path)) as connection:
            return int(connection.execute("PRAGMA freelist_count").fetchone()[0])

    eventually(lambda: free() <= 256, "the pages to be given back")
    journal.close()
    assert journal.path.stat().st_size < large / 10
    assert journal_report.check(journal.path).is_sound


@pytest.mark.slow
def test_a_million_updates_of_few_records_leave_a_small_file(
    open_journal: Callable[..., Journal],
) -> None:
    journal = open_journal(retention=Retention(rows=1000), clock=lambda: 0.0)
    wal = journal.path.with_name(journal.path.name + "-wal")
    outstanding = deque[Any]()
    largest = 0
    for number in range(1, 10_001):
        batch = {("gpu", f"GPU-{n}"): {"number": number, "holder": "run"} for n in range(100)}
        outstanding.append(journal.write(batch, [], events(number, 1)))
        if len(outstanding) > 50:
            outstanding.popleft().result(DEADLINE)
        if number % 100 == 0:
            largest = max(largest, journal.path.stat().st_size + wal.stat().st_size)
    for future in outstanding:
        future.result(DEADLINE)
    assert largest < 24 * 1024 * 1024
    assert len(journal.load()) == 100
    eventually(lambda: len(ids(journal)) < 3000, "the oldest events to go")
    journal.close()
    assert not wal.exists()
    assert journal.path.stat().st_size < 2 * 1024 * 1024


def test_the_file_for_a_reader_that_stays_is_closed_all_the_same(
    open_journal: Callable[..., Journal],
) -> None:
    """A reader keeps the WAL from being merged; the next opening reads it."""
    journal = open_journal()
    with closing(journal_file.connect_read_only(journal.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchall()
        journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
        journal.close()
        wal = journal.path.with_name(journal.path.name + "-wal")
        assert os.path.getsize(wal) > 0
        journal = open_journal()
        assert journal.load() == {("run", "a"): {}}
