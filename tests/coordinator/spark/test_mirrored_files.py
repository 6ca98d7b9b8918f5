"""The driver's copy of members' files: names that nobody should trust, and names that are taken."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from coordinator.core.errors import InvalidRun
from coordinator.core.file_values import Held, Piece
from coordinator.core.model import IncarnationId, MemberId, Role
from coordinator.file_client import Origin
from coordinator.spark.log_directory import LogDirectory
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.spark.store_copy import is_url, local_path

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


def test_one_that_comes_again_is_not_counted_twice(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path, max_bytes=10)
    files.take(ORIGIN, Piece("a", 0, 0, b"six by"))
    assert files.take(ORIGIN, Piece("a", 0, 0, b"six by")).size == 6
    files.take(ORIGIN, Piece("a", 1, 0, b"eight by"))
    assert text_of(tmp_path) == {"worker-1/a": "eight by"}
    assert files.complaints == []


def test_names_without_end_are_not_remembered(tmp_path: Path) -> None:
    files = MirroredFiles(tmp_path, max_files=3)
    for number in range(1_000):
        assert files.take(ORIGIN, Piece(f"../{number}", 0, 7, b"evil")).size == 11
    assert len(files._files[ORIGIN]) == 3


def test_a_name_that_the_file_system_does_not_take_costs_that_file_alone(tmp_path: Path) -> None:
    """To try it again and again would keep all others waiting."""
    deep = tmp_path.joinpath(*["d" * 200] * 17)
    deep.mkdir(parents=True)
    files = MirroredFiles(deep)
    long = "/".join(["x" * 240] * 4)
    assert files.take(ORIGIN, Piece(long, 0, 0, b"lost")) == Held(long, 0, 4)
    files.take(ORIGIN, Piece("good", 0, 0, b"good"))
    assert text_of(deep) == {"worker-1/good": "good"}
    (complaint,) = files.complaints
    assert complaint.endswith("is not kept: File name too long")


def test_a_file_that_somebody_has_replaced_by_a_directory_costs_that_file_alone(
    tmp_path: Path,
) -> None:
    files = MirroredFiles(tmp_path)
    files.take(ORIGIN, Piece("a", 0, 0, b""))
    (tmp_path / "worker-1" / "a").unlink()
    (tmp_path / "worker-1" / "a").mkdir()
    assert files.take(ORIGIN, Piece("a", 0, 0, b"one")) == Held("a", 0, 3)
    assert files.take(ORIGIN, Piece("a", 0, 3, b" two")) == Held("a", 0, 7)
    assert len(files.complaints) == 1


def test_a_disk_that_is_full_is_another_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = MirroredFiles(tmp_path)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("coordinator.spark.mirrored_files.os.pwrite", full)
        with pytest.raises(OSError, match="No space"):
            files.take(ORIGIN, Piece("a", 0, 0, b"one"))
    assert files.take(ORIGIN, Piece("a", 0, 0, b"one")) == Held("a", 0, 3)


# -- where they end up ---------------------------------------------------------------------


def test_a_path_and_an_url_are_told_apart() -> None:
    assert is_url("s3://bucket/logs")
    assert not is_url("file:///logs")
    assert not is_url("logs")
    assert local_path("file:///logs") == Path("/logs")
    assert local_path("file:/logs") == local_path("local:/logs") == Path("/logs")
    assert local_path("logs") == Path.cwd() / "logs"
    assert local_path("a:b") == Path.cwd() / "a:b"


def test_an_url_with_one_slash_is_refused_and_no_directory_of_that_name_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRun, match="write dbfs://runs/1 with two slashes"):
        LogDirectory("dbfs:/runs/1")
    assert not list(tmp_path.iterdir())


def test_a_directory_of_the_user_s_is_left_alone_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events").write_text("of another run")

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", interrupt)
        with pytest.raises(KeyboardInterrupt):
            LogDirectory(str(tmp_path))
    assert text_of(tmp_path) == {"events": "of another run"}
