"""`tflease journal`: what it says of a journal, sound or not, and that it only reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from coordinator import journal_schema
from coordinator.cli import journal as command
from coordinator.journal import EventRecord, Journal

DEADLINE = 30.0
# Of its own, so that these tests need nothing of the other commands.
app = typer.Typer()
app.add_typer(command.journal, name="journal")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal.sqlite"
    monkeypatch.setenv("TFLEASE_JOURNAL", str(path))
    return path


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Open, as that of a living daemon."""
    journal = Journal.open(path, clock=lambda: 1.7e9)
    put: dict[tuple[str, str], dict[str, Any]] = {
        ("run", "12ab"): {"name": "mnist"},
        ("gpu", "GPU-1"): {"state": "held"},
        ("gpu", "GPU-2"): {"state": "free"},
    }
    told = [
        EventRecord(7, 1.7e9, "12ab", "worker:1", "run.failed", "It failed"),
        EventRecord(9, 1.7e9 + 60, "", "GPU-1", "gpu.held", "Granted"),
    ]
    journal.write(put, [], told).result(DEADLINE)
    yield journal
    journal.close()


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["journal", *arguments])


def asked(*arguments: str) -> Any:
    return json.loads(ask(*arguments, "--json").stdout)


def test_check_says_what_is_in_it_beside_its_daemon(journal: Journal) -> None:
    result = ask("check")
    assert result.exit_code == 0, result.output
    for text in (
        str(journal.path),
        journal.coordinator_id,
        "2 gpu, 1 run",
        "2 (7 to 9), from 20",
        f"process {os.getpid()}",
        "version:     1, of its records 1",
        "\nsound\n",
    ):
        assert text in result.output
    journal.write({("run", "b"): {}}, [], []).result(DEADLINE)


def test_check_for_programs(journal: Journal) -> None:
    found = asked("check", str(journal.path))
    assert found["wal_size"] > 0
    assert found["size"] == journal.path.stat().st_size
    del found["size"], found["wal_size"]
    assert found == {
        "path": str(journal.path),
        "sound": True,
        "problems": [],
        "schema_version": 1,
        "state_version": 1,
        "coordinator_id": journal.coordinator_id,
        "created_at": "2023-11-14T22:13:20.000Z",
        "records": {"gpu": 2, "run": 1},
        "events": {
            "count": 2,
            "first_id": 7,
            "last_id": 9,
            "first_at": "2023-11-14T22:13:20.000Z",
            "last_at": "2023-11-14T22:14:20.000Z",
        },
        "in_use_by": f"process {os.getpid()}",
    }
    journal.close()
    assert asked("check")["in_use_by"] is None


def test_check_of_an_empty_journal(path: Path) -> None:
    Journal.open(path).close()
    result = ask("check")
    assert result.exit_code == 0
    assert "in use by:   nobody" in result.output
    assert asked("check")["events"]["last_at"] is None


def test_check_names_the_damage(journal: Journal) -> None:
    journal.close()
    content = bytearray(journal.path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    journal.path.write_bytes(content)
    result = ask("check")
    assert result.exit_code == 1
    assert "NOT SOUND" in result.output
    assert "docs/journal.md" in result.output
    assert journal.path.read_bytes() == bytes(content)
    found = asked("check")
    assert not found["sound"]
    assert found["problems"]


def test_check_names_a_record_that_is_no_json(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.journal_writer._json", lambda value: "[1]")
    journal.write({("gpu", "GPU-3"): {}}, [], []).result(DEADLINE)
    assert "the record gpu GPU-3 is no JSON object" in ask("check").output


def test_check_of_what_is_no_journal(path: Path, tmp_path: Path) -> None:
    assert "there is no journal" in ask("check").output
    assert ask("check").exit_code == 1
    assert asked("check")["coordinator_id"] is None
    assert not path.exists(), "looking makes nothing"
    path.write_text("notes")
    result = ask("check")
    assert result.exit_code == 1
    assert "no SQLite database" in result.output
    assert "is a folder" in ask("check", str(tmp_path)).output


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_export_gives_everything_beside_its_daemon(journal: Journal) -> None:
    result = ask("export")
    assert result.exit_code == 0
    header, *rest = lines(result.stdout)
    assert header == {
        "type": "journal",
        "format": 1,
        "path": str(journal.path),
        "schema_version": 1,
        "state_version": 1,
        "coordinator_id": journal.coordinator_id,
        "created_at": 1.7e9,
    }
    assert rest == [
        {"type": "record", "kind": "gpu", "key": "GPU-1", "value": {"state": "held"}},
        {"type": "record", "kind": "gpu", "key": "GPU-2", "value": {"state": "free"}},
        {"type": "record", "kind": "run", "key": "12ab", "value": {"name": "mnist"}},
        {
            "type": "event",
            "id": 7,
            "at": 1.7e9,
            "run_id": "12ab",
            "subject": "worker:1",
            "kind": "run.failed",
            "text": "It failed",
        },
        {
            "type": "event",
            "id": 9,
            "at": 1.7e9 + 60,
            "run_id": "",
            "subject": "GPU-1",
            "kind": "gpu.held",
            "text": "Granted",
        },
    ]


def test_export_of_an_older_version_is_as_the_newest_would_have_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.close()
    before = journal.path.read_bytes()
    more = ("UPDATE records SET value = '{\"new\":1}' WHERE kind = 'run'",)
    monkeypatch.setattr(journal_schema, "MIGRATIONS", (*journal_schema.MIGRATIONS, more))
    assert ask("check").exit_code == 0
    found = lines(ask("export").stdout)
    assert found[3]["value"] == {"new": 1}
    assert journal.path.read_bytes() == before
    assert not list(journal.path.parent.glob("*.before-*"))


def test_export_into_a_file_of_ones_own(journal: Journal, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert ask("export", "--output", str(output)).exit_code == 0
    assert len(lines(output.read_text())) == 6
    assert output.stat().st_mode & 0o777 == 0o600
    again = ask("export", "--output", str(output))
    assert again.exit_code == 1
    assert "exists already: name a new file" in again.output
    assert len(lines(output.read_text())) == 6
    assert "cannot be made" in ask("export", "--output", str(tmp_path / "no" / "where")).output


def test_export_of_what_is_no_journal_leaves_no_file(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    result = ask("export", "--output", str(output))
    assert result.exit_code == 1
    assert "there is no journal" in result.output
    assert not output.exists()
    assert ask("export").exit_code == 1


@pytest.mark.parametrize("command", ["check", "export"])
def test_what_can_be_no_journal_is_said_without_a_traceback(command: str, tmp_path: Path) -> None:
    for path, said in (("/", "is a folder"), ("/..", "is a folder")):
        result = ask(command, path)
        assert (result.exit_code, said in result.output) == (1, True), result.output
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be found" in ask(command, str(tmp_path / "loop")).output
    result = ask(command, "~no-such-user/journal.sqlite")
    assert result.exit_code == 1
    assert "~no-such-user/journal.sqlite: name the file" in result.output


def test_a_home_folder_that_nobody_has_in_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFLEASE_JOURNAL", "~no-such-user/journal.sqlite")
    result = ask("check")
    assert result.exit_code == 1
    assert "there is no journal" in result.output
