"""What is copied to the store next (`core.uploads`), and which files are a checkpoint's."""

from __future__ import annotations

import pytest

from executor_agent.core.checkpoint_names import (
    files_of,
    is_whole_index,
    needs_copies,
    without_shards,
)
from executor_agent.core.uploads import Action, LocalCheckpoint, Remove, Upload, Uploads, WriteNote


def checkpoint(number: int, version: int = 1) -> LocalCheckpoint:
    prefix = f"ckpt-{number}"
    files = (f"{prefix}.data-00000-of-00001", f"{prefix}.index")
    return LocalCheckpoint(prefix, files, (version,), written_at=100 * number + version)


FIRST, SECOND, THIRD = checkpoint(1), checkpoint(2), checkpoint(3)


def carry_out(
    uploads: Uploads,
    found: list[LocalCheckpoint],
    notes: dict[str, str] | None = None,
    *,
    hurry: bool = False,
) -> list[Action]:
    """All that is to be done."""
    done: list[Action] = []
    while (action := uploads.next(found, notes or {}, hurry=hurry)) is not None:
        uploads.begin(action)
        uploads.done(action)
        done.append(action)
        assert len(done) < 20
    return done


def test_checkpoints_are_copied_in_the_order_they_were_written_and_then_the_note() -> None:
    uploads = Uploads()
    note = {"checkpoint": "ckpt-2"}
    assert carry_out(uploads, [SECOND, FIRST], note) == [
        Upload(FIRST),
        Upload(SECOND),
        WriteNote("checkpoint", "ckpt-2"),
    ]
    assert uploads.newest == SECOND
    assert carry_out(uploads, [SECOND, FIRST], note) == []


def test_a_note_that_names_nothing_of_the_store_is_not_written() -> None:
    assert carry_out(Uploads(), [], {"checkpoint": "ckpt-1"}) == []


def test_what_is_gone_is_removed_after_the_newer_one_is_there_index_first() -> None:
    uploads = Uploads()
    carry_out(uploads, [FIRST])
    assert carry_out(uploads, [SECOND], {"checkpoint": "ckpt-2"}) == [
        Upload(SECOND),
        WriteNote("checkpoint", "ckpt-2"),
        Remove("ckpt-1", ("ckpt-1.index", "ckpt-1.data-00000-of-00001")),
    ]


def test_the_newest_one_of_the_store_is_never_removed() -> None:
    uploads = Uploads()
    carry_out(uploads, [FIRST, SECOND])
    assert carry_out(uploads, []) == [Remove("ckpt-1", FIRST.files[::-1])]
    assert uploads.newest == SECOND


def test_in_a_hurry_the_newest_alone_is_copied_and_no_older_one_after_it() -> None:
    """The store's times tell which is the latest: an older one that came later would be it."""
    uploads = Uploads()
    assert carry_out(uploads, [FIRST, SECOND, THIRD], hurry=True) == [Upload(THIRD)]
    assert uploads.waiting([FIRST, SECOND, THIRD], hurry=True) == []


def test_of_one_that_is_written_again_the_old_index_goes_first() -> None:
    """Else new data beside the old index would count as complete."""
    uploads = Uploads()
    carry_out(uploads, [FIRST])
    again = checkpoint(1, version=2)
    action = uploads.next([again], {})
    assert action == Upload(again, remove_first="ckpt-1.index")
    uploads.begin(action)
    assert uploads.newest is None
    assert uploads.next([again], {}) == action, "until it is done"


def test_half_a_copy_of_one_that_is_gone_is_removed() -> None:
    uploads = Uploads()
    action = uploads.next([FIRST], {})
    assert action is not None
    uploads.begin(action)
    assert carry_out(uploads, [SECOND]) == [Upload(SECOND), Remove("ckpt-1", FIRST.files[::-1])]


def test_the_index_is_the_last_of_a_checkpoints_files() -> None:
    names = ["a-1.index", "a-1.data-00001-of-00002", "a-1.data-00000-of-00002", "a-11.index", "x"]
    shards = ["a-1.data-00000-of-00002", "a-1.data-00001-of-00002"]
    assert files_of("a-1", names) == [*shards, "a-1.index"]


def test_an_index_without_its_shards_is_seen() -> None:
    names = ["a-1.index", "a-1.data-00000-of-00001", "a-2.index", "a-3.data-00000-of-00001"]
    assert without_shards(names) == ["a-2"]


def test_an_index_that_was_cut_off_is_seen() -> None:
    whole = b"..." + bytes.fromhex("57fb808b247547db")
    assert is_whole_index(whole)
    assert not is_whole_index(whole[:-1])
    assert not is_whole_index(b"")


@pytest.mark.parametrize(
    "model_dir, copies",
    [
        ("/models", False),
        ("models/a", False),
        ("file:///models", False),
        ("hdfs://host/models", False),
        ("gs://bucket/models", False),
        ("ram://models", False),
        ("s3://bucket/models", True),
        ("S3A://bucket/models", True),
        ("abfs://container/models", True),
        ("memory://models", True),
    ],
)
def test_places_that_tensorflow_does_not_reach_get_copies(model_dir: str, copies: bool) -> None:
    assert needs_copies(model_dir) is copies
