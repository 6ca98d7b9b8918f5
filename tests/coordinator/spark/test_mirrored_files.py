"""The driver's copy of members' files: names that nobody should trust, and names that are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.core.file_values import Held, Piece
from coordinator.core.model import IncarnationId, MemberId, Role
from coordinator.file_client import Origin
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.spark.store_copy import StoreCopy, is_url, local_path

ORIGIN = Origin(MemberId(Role.WORKER, 1), IncarnationId("first"))
LATER = Origin(MemberId(Role.WORKER, 1), IncarnationId("second"))


def text_of(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../../x", "", ".", "a//b", "a\0b", "a\nb", "x" * 300, "/".join("x" * 40)],
)
def test_a_hostile_path_is_acknowledged_and_not_kept(tmp_path: Path, path: str) -> None:
    """So that its sender goes on with the others."""
    files = MirroredFiles(tmp_path / "mirror")
    assert files.take(ORIGIN, Piece(path, 0, 0, b"evil")) == Held(path, 0, 4)
    assert text_of(tmp_path) == {}
    assert len(files.complaints) == 1


def test_pieces_are_written_where_they_belong_once(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path)
    assert files.take(ORIGIN, Piece("a/b", 0, 0, b"one ")) == Held("a/b", 0, 4)
    assert files.take(ORIGIN, Piece("a/b", 0, 0, b"one two ")) == Held("a/b", 0, 8)
    assert files.take(ORIGIN, Piece("a/b", 0, 9, b"late")) == Held("a/b", 0, 8, missed=True)
    assert files.take(ORIGIN, Piece("a/b", 0, 8, b"three")) == Held("a/b", 0, 13)
    assert text_of(tmp_path) == {"worker-1/a/b": "one two three"}


def test_a_newer_version_replaces_what_is_there_and_an_older_one_does_nothing(
    tmp_path: Path,
) -> None:
    files = MirroredFiles(tmp_path)
    files.take(ORIGIN, Piece("a", 0, 0, b"a long one"))
    assert files.take(ORIGIN, Piece("a", 1, 2, b"xx")) == Held("a", 1, 0, missed=True)
    assert text_of(tmp_path) == {"worker-1/a": "a long one"}
    assert files.take(ORIGIN, Piece("a", 1, 0, b"short")) == Held("a", 1, 5)
    assert files.take(ORIGIN, Piece("a", 0, 10, b" and late")) == Held("a", 1, 5)
    assert text_of(tmp_path) == {"worker-1/a": "short"}


def test_nothing_that_was_there_before_is_touched(tmp_path: Path) -> None:
    (tmp_path / "worker-1").mkdir()
    (tmp_path / "worker-1" / "a").write_text("of another run")
    (tmp_path / "elsewhere").write_text("elsewhere")
    (tmp_path / "worker-1" / "b").symlink_to(tmp_path / "elsewhere")
    files = MirroredFiles(tmp_path)
    files.take(ORIGIN, Piece("a", 0, 0, b"one"))
    files.take(ORIGIN, Piece("b", 0, 0, b"two"))
    files.take(LATER, Piece("a", 0, 0, b"three"))
    assert text_of(tmp_path) == {
        "worker-1/a": "of another run",
        "worker-1/a.2": "one",
        "worker-1/a.3": "three",
        "worker-1/b": "elsewhere",
        "worker-1/b.2": "two",
        "elsewhere": "elsewhere",
    }


def test_a_file_in_the_place_of_a_directory_costs_what_is_below_it(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path)
    files.take(ORIGIN, Piece("a", 0, 0, b"a file"))
    assert files.take(ORIGIN, Piece("a/b", 0, 0, b"below it")).size == 8
    assert text_of(tmp_path) == {"worker-1/a": "a file"}
    assert len(files.complaints) == 1


def test_a_file_that_somebody_deletes_is_asked_for_from_its_beginning(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path)
    files.take(ORIGIN, Piece("a", 0, 0, b"one "))
    (tmp_path / "worker-1" / "a").unlink()
    assert files.take(ORIGIN, Piece("a", 0, 4, b"two")) == Held("a", 0, 0, missed=True)
    assert files.take(ORIGIN, Piece("a", 0, 0, b"one two")) == Held("a", 0, 7)
    assert text_of(tmp_path) == {"worker-1/a": "one two"}


def test_more_files_or_bytes_than_may_be_are_acknowledged_and_not_kept(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path, max_files=2, max_bytes=10)
    files.take(ORIGIN, Piece("a", 0, 0, b"six by"))
    assert files.take(ORIGIN, Piece("b", 0, 0, b"six by")).size == 6
    assert files.take(ORIGIN, Piece("c", 0, 0, b"6")).size == 1
    assert text_of(tmp_path) == {"worker-1/a": "six by", "worker-1/b": ""}
    assert len(files.complaints) == 2


# -- where they end up ---------------------------------------------------------------------


def test_a_path_and_an_url_are_told_apart() -> None:
    assert is_url("s3://bucket/logs")
    assert not is_url("file:///logs")
    assert not is_url("logs")
    assert local_path("file:///logs") == Path("/logs")
    assert local_path("logs") == Path.cwd() / "logs"


def test_what_has_changed_is_copied_to_a_store(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    said: list[str] = []
    (tmp_path / "worker-1" / "train").mkdir(parents=True)
    (tmp_path / "worker-1" / "train" / "a").write_bytes(b"one")
    copy = StoreCopy(tmp_path, "memory://logs-of-a-test/run", said.append)
    assert copy.copy()
    assert store.cat("/logs-of-a-test/run/worker-1/train/a") == b"one"
    store.pipe("/logs-of-a-test/run/worker-1/train/a", b"not copied again")
    assert copy.copy()
    assert store.cat("/logs-of-a-test/run/worker-1/train/a") == b"not copied again"
    with (tmp_path / "worker-1" / "train" / "a").open("ab") as file:
        file.write(b" two")
    copy.start()
    assert copy.finish(20.0)
    assert store.cat("/logs-of-a-test/run/worker-1/train/a") == b"one two"
    store.rm("/logs-of-a-test", recursive=True)
    assert said == []


def test_a_store_that_fails_is_said_once_and_the_files_stay(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    said: list[str] = []
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "store").write_bytes(b"a file in the place of the store")
    copy = StoreCopy(tmp_path, f"local://{tmp_path}/store", said.append)
    assert not copy.copy()
    assert not copy.copy()
    assert len(said) == 1
    assert not copy.finish(20.0)
    assert str(tmp_path) in said[-1]
