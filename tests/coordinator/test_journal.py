"""The journal: what is written is there, in full, after any number of openings."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.journal import (
    EventQuery,
    EventRecord,
    Journal,
    JournalUnusable,
    Retention,
    default_journal_path,
)

DEADLINE = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.open(path, clock=lambda: 1000.0)
    yield journal
    journal.close()


def event(number: int, **others: Any) -> EventRecord:
    values: dict[str, Any] = {"at": 100.0 + number, "run_id": "12ab", "subject": "worker:1",
                              "kind": "member.lost", "text": f"It is lost ({number})"}  # fmt: skip
    return EventRecord(id=number, **{**values, **others})


def reopened(journal: Journal, **options: Any) -> Journal:
    journal.close()
    return Journal.open(journal.path, clock=lambda: 1000.0, **options)


def test_a_new_journal_is_empty_and_for_its_user_alone(journal: Journal, path: Path) -> None:
    assert journal.load() == {}
    assert journal.events(EventQuery()) == []
    assert (journal.next_event_id, journal.state_version, journal.created_at) == (1, 1, 1000.0)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == [
        "journal.sqlite",
        "journal.sqlite-shm",
        "journal.sqlite-wal",
        "journal.sqlite.lock",
    ]
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_a_commit_is_safe_against_a_loss_of_power_and_pages_can_be_given_back(
    journal: Journal,
) -> None:
    """As SQLite names it; a loss of power itself is not tried here."""
    settings = {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2}
    connection = journal._writer._connection
    for name, value in settings.items():
        assert connection.execute(f"PRAGMA {name}").fetchone() == (value,)


def test_what_was_written_is_there_after_the_next_opening(journal: Journal, path: Path) -> None:
    run = {"name": "mnist é \ud800", "members": [{"role": "worker", "ttl": 15.5, "gone": None}]}
    journal.write({("run", "12ab"): run, ("gpu", "12ab"): {}}, [], [event(7)]).result(DEADLINE)
    journal.write({("gpu", "GPU-1"): {"number": 2**60}}, [], []).result(DEADLINE)
    identity = journal.coordinator_id
    journal = reopened(journal)
    assert journal.load() == {
        ("run", "12ab"): run,
        ("gpu", "12ab"): {},
        ("gpu", "GPU-1"): {"number": 2**60},
    }
    assert journal.events(EventQuery()) == [event(7)]
    assert journal.coordinator_id == identity
    assert journal.next_event_id == 8
    journal.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "journal.sqlite",
        "journal.sqlite.lock",
    ]


def test_many_records_come_back_each_under_its_key(journal: Journal) -> None:
    """They are parsed many at a time; nothing in a text may pass for what stands between two."""
    texts = ("NaN", ",NaN,", ",\nNaN,", "null", "[", '"}', "\\", "\u2028")
    put = {("kind", f"{n}{text}"): {"n": n, text: [text]} for n in range(300) for text in texts}
    journal.write(put, [], []).result(DEADLINE)
    assert journal.load() == put


def test_two_journals_have_two_coordinators(journal: Journal, tmp_path: Path) -> None:
    other = Journal.open(tmp_path / "other.sqlite")
    other.close()
    assert len(journal.coordinator_id) == 32
    assert other.coordinator_id != journal.coordinator_id


def test_the_last_word_about_a_record_counts(journal: Journal) -> None:
    key = ("member", "worker:1")
    futures = [
        journal.write({key: {"n": 1}, ("member", "ps:0"): {"n": 1}}, [], []),
        journal.write({}, [key], []),
        journal.write({key: {"n": 3}}, [], []),
        journal.write({("gpu", "a"): {}}, [("gpu", "never was")], []),
        journal.write({}, [("member", "ps:0")], []),
        journal.write({("gpu", "b"): {"n": 5}}, [("gpu", "b")], []),
    ]
    for future in futures:
        future.result(DEADLINE)
    assert journal.load() == {key: {"n": 3}, ("gpu", "a"): {}, ("gpu", "b"): {"n": 5}}


def test_the_same_batch_may_be_written_again(journal: Journal) -> None:
    for _ in range(2):
        journal.write({("run", "a"): {"n": 1}}, [("run", "b")], [event(1)]).result(DEADLINE)
    assert journal.load() == {("run", "a"): {"n": 1}}
    assert journal.events(EventQuery()) == [event(1)]


def test_writes_from_many_threads_are_all_there(journal: Journal) -> None:
    def write(name: str) -> None:
        for number in range(50):
            journal.write({(name, str(number)): {"n": number}}, [], []).result(DEADLINE)

    threads = [threading.Thread(target=write, args=(f"kind{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(journal.load()) == 200


def test_events_are_found_by_what_they_are_about(journal: Journal) -> None:
    told = [
        event(1, run_id="12ab", kind="run.failed", text="worker:1 failed: 100% of _it_"),
        event(2, run_id="34cd", kind="run.stopped", text="Stopped by an operator"),
        event(3, run_id="", subject="GPU-5B2C", kind="gpu.quarantined", text="Quarantined"),
        event(5, run_id="12ab", kind="runner", text="no run at all"),
    ]
    journal.write({}, [], told).result(DEADLINE)

    def ids(**query: Any) -> list[int]:
        return [each.id for each in journal.events(EventQuery(**query))]

    assert journal.events(EventQuery()) == told
    assert ids(run_id="12ab") == [1, 5]
    assert ids(since=102.0) == [2, 3, 5]
    assert ids(since=102.0, until=103.0) == [2, 3]
    assert ids(kind="run") == [1, 2]
    assert ids(kind="run.failed") == [1]
    assert ids(text="OPERATOR") == [2]
    assert ids(text="gpu-5b2c") == [3], "the subject, too"
    assert ids(text="0% of _i") == [1], "no wildcards"
    assert ids(text="_o_r") == []
    assert ids(after_id=2) == [3, 5]
    assert ids(limit=2) == [1, 2]
    assert ids(limit=2, is_latest=True) == [3, 5]
    assert ids(run_id="12ab", after_id=1, kind="run") == []


def test_an_event_that_is_no_text_is_written_all_the_same(journal: Journal) -> None:
    """Names of files may hold what no encoding knows."""
    journal.write({}, [], [event(1, text="ends in \udcff")]).result(DEADLINE)
    assert journal.events(EventQuery())[0].text == "ends in \\udcff"


def test_what_is_not_plain_is_refused_and_nothing_of_it_is_written(journal: Journal) -> None:
    journal.write({("run", "before"): {}}, [], []).result(DEADLINE)
    bad = journal.write({("run", "a"): {}, ("run", "b"): {"x": object()}}, [], [event(1)])
    with pytest.raises(TypeError):
        bad.result(DEADLINE)
    with pytest.raises(ValueError, match="JSON"):
        journal.write({("run", "c"): {"x": float("inf")}}, [], []).result(DEADLINE)
    assert list(journal.load()) == [("run", "before")]
    assert journal.events(EventQuery()) == []


def test_the_version_of_the_records_is_written_with_them(journal: Journal) -> None:
    journal = reopened(journal, state_version=2)
    assert journal.state_version == 1, "they are as they were"
    journal.write({("run", "a"): {}}, [], [], state_version=2).result(DEADLINE)
    journal = reopened(journal, state_version=2)
    assert journal.state_version == 2
    journal.close()
    with pytest.raises(JournalUnusable, match=r"have version 2, .* knows versions up to 1: start"):
        Journal.open(journal.path, state_version=1)


def test_a_closed_journal_writes_nothing_and_can_be_closed_again(journal: Journal) -> None:
    last = journal.write({("run", "a"): {}}, [], [])
    journal.close()
    assert last.done(), "closing waits for what was handed over"
    last.result()
    with pytest.raises(JournalUnusable, match="closed"):
        journal.write({("run", "b"): {}}, [], []).result(DEADLINE)
    journal.close()
    journal = Journal.open(journal.path)
    assert list(journal.load()) == [("run", "a")]
    journal.close()


def test_retention_that_keeps_nothing_makes_no_sense() -> None:
    for bad in ({"days": 0.0}, {"days": float("nan")}, {"rows": 0}):
        with pytest.raises(ValueError, match="must be kept"):
            Retention(**bad)  # type: ignore[arg-type]


def test_where_it_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/ada")
    monkeypatch.delenv("TFLEASE_JOURNAL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert default_journal_path() == Path("/ada/.local/state/tflease/journal.sqlite")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_journal_path() == Path("/state/tflease/journal.sqlite")
    monkeypatch.setenv("TFLEASE_JOURNAL", "~/mine.sqlite")
    assert default_journal_path() == Path("/ada/mine.sqlite")
