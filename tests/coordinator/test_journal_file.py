"""What the journal refuses, and that it leaves it as it is; new versions of the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator import journal_file, journal_report, journal_schema
from coordinator.journal import EventQuery, EventRecord, Journal, JournalUnusable

DEADLINE = 30.0
NOBODY = 65534
EVENT = EventRecord(1, 5.0, "12ab", "worker:1", "run.failed", "It failed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with something in it."""
    path = tmp_path / "journal.sqlite"
    journal = Journal.open(path)
    many = {("gpu", f"GPU-{n}"): {"n": n, "text": "x" * 200} for n in range(200)}
    journal.write(many, [], [EVENT]).result(DEADLINE)
    journal.close()
    return path


def refused(path: Path, text: str) -> None:
    """With this text, and nothing about the file is changed."""
    before = path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else None
    there = sorted(path.parent.iterdir())
    with pytest.raises(JournalUnusable, match=text) as caught:
        Journal.open(path)
    assert str(path) in str(caught.value)
    if before is not None:
        assert path.read_bytes() == before
    suffixes = (".lock", "-shm", "-wal", ".before-v2")
    made = {path.with_name(path.name + suffix) for suffix in suffixes}
    assert set(path.parent.iterdir()) - set(there) <= made


def sqlite(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- what is not ours ------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_nothing_is_made_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    refused(path, "no SQLite database, and is left as it is")
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    refused(path, "is not a journal of tflease")
    assert list(tmp_path.iterdir()) == [path]


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    sqlite(path, "CREATE TABLE meta (key TEXT, value TEXT)", "CREATE TABLE records (n INTEGER)")
    refused(path, "is not a journal of tflease, and is left as it is: name another file")
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_file_of_somebody_else_keeps_its_content(tmp_path: Path) -> None:
    path, lock = tmp_path / "other", tmp_path / "other.lock"
    path.write_text("not a journal")
    lock.write_text("precious")
    refused(path, "no SQLite database")
    assert lock.read_text() == "precious"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="is a folder: name a file for the journal"):
        Journal.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(JournalUnusable, match="is no regular file"):
        Journal.open(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalUnusable, match=r"cannot be looked at|cannot be made"):
        Journal.open(tmp_path / "file" / "journal.sqlite")


# -- what is not safe ------------------------------------------------------------------------------


def test_a_file_that_others_can_write_is_refused(path: Path) -> None:
    path.chmod(0o620)
    refused(path, r"can be written by others \(mode 0620\).*chmod 600")
    path.chmod(0o640)
    Journal.open(path).close()


def test_the_file_of_another_user_is_refused(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, NOBODY, -1)
    refused(path, f"belongs to another user .uid {NOBODY}, this process has 0.*start as that user")


def test_a_file_without_permission_is_refused(path: Path) -> None:
    if os.geteuid() != 0:
        path.chmod(0)
        refused(path, "cannot be read: permission denied")
        return
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        copy = Path(shutil.copy(path, folder))
        copy.chmod(0o600)
        os.chmod(folder, 0o755)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(JournalUnusable, match="cannot be read: permission denied"):
                Journal.open(copy)
            with pytest.raises(JournalUnusable, match=r"(?i)cannot be .*: permission denied"):
                Journal.open(copy.with_name("new.sqlite"))
        finally:
            os.seteuid(0)
        assert list(Path(folder).iterdir()) == [copy]


def test_a_read_only_file_system_is_refused(path: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=4m") as folder:
        copy = Path(shutil.copy(path, folder))
        command = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(command, check=True)
        refused(copy, "is on a read-only file system: mount it writable, or name")
        with pytest.raises(JournalUnusable, match="is on a read-only file system"):
            Journal.open(folder / "new.sqlite")
        report = journal_report.check(copy)  # looking is possible
        assert report.is_sound
        assert report.records == {"gpu": 200}


# -- what is damaged -------------------------------------------------------------------------------


def test_a_damaged_file_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    path.write_bytes(content)
    refused(path, "is damaged.*docs/journal.md")


def test_a_file_that_was_cut_off_is_refused(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    refused(path, "is damaged")


def test_a_damaged_header_is_refused(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 16)
    refused(path, "no SQLite database")


def test_a_file_without_its_facts_is_refused(path: Path) -> None:
    sqlite(path, "DELETE FROM meta WHERE key = 'coordinator_id'")
    refused(path, "is damaged: its table meta is incomplete .'coordinator_id'")
    sqlite(path, "DROP TABLE meta")
    refused(path, "no such table: meta")


def test_a_record_that_is_no_json_is_named(path: Path) -> None:
    sqlite(path, "UPDATE records SET value = '{' WHERE key = 'GPU-7'")
    journal = Journal.open(path)
    try:
        with pytest.raises(JournalUnusable, match="the record gpu GPU-7 is no JSON"):
            journal.load()
    finally:
        journal.close()


@pytest.mark.parametrize(
    "first, second",
    [
        ("{", "}"),
        ('{"a":1', '"b":2}'),
        ('{"a":[1', "2]}"),
        ('{"a":[1', '2]},null,{"b":1}'),
        ('{"a":[1', '2]},NaN,{"b":1}'),
        ('{"a":"x', 'y"}'),
        ('{"a":"x', 'y"},NaN,{"b":1}'),
        ('{"a":[1', '2]},\nNaN,{"b":1}'),
        ("{},{}", "{}"),
    ],
)
def test_a_record_that_goes_on_in_the_next_one_is_named(
    path: Path, first: str, second: str
) -> None:
    """They are parsed many at a time."""
    sqlite(path, f"UPDATE records SET value = '{first}' WHERE key = 'GPU-7'")
    sqlite(path, f"UPDATE records SET value = '{second}' WHERE key = 'GPU-8'")
    journal = Journal.open(path)
    try:
        with pytest.raises(JournalUnusable, match="the record gpu GPU-7 is no JSON"):
            journal.load()
    finally:
        journal.close()


def test_the_wal_of_a_file_that_is_missing_is_not_put_on_a_new_one(path: Path) -> None:
    wal = path.with_name(path.name + "-wal")
    path.unlink()
    wal.write_bytes(b"last words")
    with pytest.raises(JournalUnusable, match=r"is missing, but .*-wal is there.*put the file"):
        Journal.open(path)
    assert not path.exists()
    assert wal.read_bytes() == b"last words"
    wal.write_bytes(b"")  # what a mere look at a closed journal leaves
    Journal.open(path).close()


def test_what_a_killed_creation_left_is_no_hindrance(path: Path) -> None:
    path.unlink()
    for suffix in (".new", ".new-journal", ".new-wal"):
        path.with_name(path.name + suffix).write_bytes(b"half a file")
    Journal.open(path).close()
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["journal.sqlite", "journal.sqlite.lock"]


# -- who has it ------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from coordinator.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
journal.write({("run", "theirs"): {}}, [], []).result(30)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_journal_in_use_is_refused_until_its_process_is_gone(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            refused(path, f"in use by process {process.pid}: stop that one")
            link = path.with_name("link.sqlite")
            link.symlink_to(path)
            with pytest.raises(JournalUnusable, match=f"in use by process {process.pid}"):
                Journal.open(link)
        finally:
            process.kill()
    journal = Journal.open(path)
    assert ("run", "theirs") in journal.load()
    journal.close()


@pytest.mark.slow
def test_a_journal_is_in_use_by_its_own_process_too(path: Path) -> None:
    journal = Journal.open(path)
    refused(path, f"in use by process {os.getpid()}")
    journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
    journal.close()
    Journal.open(path).close()


# -- versions --------------------------------------------------------------------------------------


def test_a_newer_version_is_refused(path: Path) -> None:
    newer = journal_schema.newest_version() + 1
    sqlite(path, f"UPDATE meta SET value = '{newer}' WHERE key = 'schema_version'")
    refused(path, f"has version {newer}, .* knows versions up to {newer - 1}: start the newer")


@pytest.fixture
def next_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This program is one version ahead of the file."""
    more = (
        "ALTER TABLE records ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",
        "CREATE TABLE extra (n INTEGER)",
    )
    monkeypatch.setattr(journal_schema, "MIGRATIONS", (*journal_schema.MIGRATIONS, more))
    return path


def test_an_older_version_is_brought_up_to_date_after_a_copy(next_version: Path) -> None:
    newest = journal_schema.newest_version()
    before = next_version.read_bytes()
    journal = Journal.open(next_version)
    assert len(journal.load()) == 200
    assert journal.events(EventQuery()) == [EVENT]
    journal.write({("run", "a"): {}}, [], []).result(DEADLINE)
    journal.close()
    copy = next_version.with_name(f"journal.sqlite.before-v{newest}")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not copy.with_name(copy.name + ".new").exists()
    with closing(journal_file.connect_read_only(copy)) as connection:
        assert journal_file.read_facts(copy, connection).schema_version == newest - 1
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (200,)
    assert len(copy.read_bytes()) == len(before)
    with closing(journal_file.connect_read_only(next_version)) as connection:
        assert journal_file.read_facts(next_version, connection).schema_version == newest
        assert connection.execute("SELECT colour FROM records").fetchone() == ("red",)


def test_a_new_file_goes_through_all_versions(next_version: Path, tmp_path: Path) -> None:
    fresh, upgraded = tmp_path / "fresh.sqlite", next_version
    schemas = []
    for path in (fresh, upgraded):
        Journal.open(path).close()
        with closing(journal_file.connect_read_only(path)) as connection:
            rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name")
            schemas.append(rows.fetchall())
    assert schemas[0] == schemas[1]
    assert not list(tmp_path.glob("fresh.sqlite.before*"))


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("CREATE TABLE extra (n INTEGER)", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(journal_schema, "MIGRATIONS", (*journal_schema.MIGRATIONS, broken))
        refused(path, "no such table: nowhere.*from version 1 to version 2, and is as it was")
    journal = Journal.open(path)
    assert len(journal.load()) == 200
    journal.close()


def test_an_upgrade_that_is_killed_is_done_by_the_next_opening(next_version: Path) -> None:
    """Between the copy and the commit: what is there then is a copy, and the file as it was."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from coordinator import journal_schema\n"
        "from coordinator.journal import Journal\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal_schema.MIGRATIONS += (('CREATE TABLE extra (n INTEGER)',),)\n"
        "journal_schema.migrate = die\n"
        "Journal.open(Path(sys.argv[1]))\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(next_version)], check=False)
    assert died.returncode == -9
    assert list(next_version.parent.glob("*.before-v2"))
    journal = Journal.open(next_version)
    assert len(journal.load()) == 200
    journal.close()
