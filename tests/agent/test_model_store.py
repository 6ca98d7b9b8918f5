"""`model_dir` on an object store: what the chief saves gets there, whole, and is found again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor_agent.model_files import StoreFiles
from executor_agent.progress import SAVED_AT
from tests.agent.store_member import (
    DEADLINE,
    END_OF_INDEX,
    FIRST,
    Member,
    eventually,
    files,
)
from tests.agent.test_context import context
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow


def test_what_the_chief_saves_is_copied_and_the_end_waits_for_the_last(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    """E6."""
    chief = make()
    assert chief.ctx.latest_checkpoint() is None
    chief.save(1)
    chief.save(2)
    chief.save(3, b"last" * 100_000)
    chief.finish()
    assert store.names("s3://bucket/model") == files(1, 2, 3)
    assert store.get(f"s3://{FIRST}/ckpt-3.data-00000-of-00001") == b"last" * 100_000
    assert b"ckpt-3" in store.get(f"s3://{FIRST}/checkpoint")
    chief.progress.close(DEADLINE)
    told = chief.messages[-1]["metrics"][SAVED_AT]
    assert told == (chief.folder / "ckpt-3.index").stat().st_mtime_ns / 1e9


def test_what_the_manager_deletes_goes_from_the_store_and_nothing_else_does(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    chief = make()
    store.put(f"s3://{FIRST}/users-own", b"")
    for step in (1, 2, 3):
        chief.save(step)
        if step > 1:
            chief.delete(step - 1)
        eventually(lambda step=step: f"{FIRST}/ckpt-{step}.index" in store.names("s3://bucket"), "")
    chief.finish()
    assert store.names("s3://bucket/model") == [*files(3), f"{FIRST}/users-own"]


def test_the_next_generation_and_every_member_find_it_and_fetch_it_once(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    chief = make()
    chief.save(9, b"nine")
    chief.save(10, b"ten")
    chief.finish()
    worker = make("worker", 2)
    found = worker.ctx.latest_checkpoint()
    assert found is not None
    assert found.startswith(worker.ctx.local_dir)
    assert found.endswith("/ckpt-10")
    assert Path(f"{found}.data-00000-of-00001").read_bytes() == b"ten"
    before = os.stat(f"{found}.index").st_ino
    assert worker.ctx.latest_checkpoint() == found
    assert os.stat(f"{found}.index").st_ino == before, "not fetched again"
    worker.progress.close(DEADLINE)
    assert worker.messages[-1]["metrics"][SAVED_AT] > 0


def test_what_others_save_stays_on_their_machine(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    worker = make("worker")
    worker.save(1)
    worker.finish()
    assert store.names("s3://bucket/model") == []


def test_an_older_generation_that_writes_late_is_not_the_latest(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    old, new = make(generation=1), make(generation=2)
    new.save(5, b"new")
    new.finish()
    old.save(900, b"zombie")
    old.finish()
    found = make("worker", 3).ctx.latest_checkpoint()
    assert found is not None
    assert Path(f"{found}.data-00000-of-00001").read_bytes() == b"new"


def test_files_that_are_no_checkpoints_are_not_lost_in_silence(
    store: ObjectStore, make: Callable[..., Member], capsys: pytest.CaptureFixture[str]
) -> None:
    chief = make()
    (chief.folder / "model.keras").write_bytes(b"")
    chief.finish()
    assert "were not copied to s3://bucket/model" in (said := capsys.readouterr().err)
    assert "model.keras. ctx.upload(path) copies them" in said


def test_at_a_stop_the_newest_is_copied(store: ObjectStore, make: Callable[..., Member]) -> None:
    chief = make()
    chief.stop.begin("a test")
    folder = chief.folder
    for step in (1, 2):
        (folder / f"ckpt-{step}.data-00000-of-00001").write_bytes(b"")
        (folder / f"ckpt-{step}.index").write_bytes(END_OF_INDEX)
    chief.finish()
    assert [each for each in store.names("s3://bucket/model") if ".index" in each] == [
        f"{FIRST}/ckpt-2.index"
    ]


def test_the_wait_for_the_last_copy_is_a_checkpoint_to_who_looks_for_stalls(
    store: ObjectStore, make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    chief = make()
    chief.ctx.report_progress(1)
    eventually(lambda: chief.section == "step", "the report")
    put = StoreFiles.put

    def put_when_told(*args: Any) -> None:
        eventually(lambda: chief.section == "checkpoint", "the section")
        put(*args)

    monkeypatch.setattr(StoreFiles, "put", put_when_told)
    (chief.folder / "ckpt-1.data-00000-of-00001").write_bytes(b"")
    (chief.folder / "ckpt-1.index").write_bytes(END_OF_INDEX)
    chief.finish()
    assert f"{FIRST}/ckpt-1.index" in store.names("s3://bucket/model")
    eventually(lambda: chief.section == "step", "the end of the section")


@pytest.mark.parametrize("place", ["s3", "local"])
def test_a_model_is_copied_below_model_dir_and_replaced_whole(
    store: ObjectStore, make: Callable[..., Member], tmp_path: Path, place: str
) -> None:
    model_dir = "s3://bucket/model" if place == "s3" else str(tmp_path / "model")
    chief = make(model_dir=model_dir)
    export = tmp_path / "export"
    (export / "variables").mkdir(parents=True)
    (export / "variables" / "old").write_text("1")
    (export / "saved_model.pb").write_text("1")
    assert chief.ctx.upload(export, "exports/1") == f"{model_dir}/exports/1"
    (export / "variables" / "old").rename(export / "variables" / "new")
    (export / "saved_model.pb").write_text("2")
    assert chief.ctx.upload(export, "exports/1") == f"{model_dir}/exports/1"
    chief.ctx.upload(export / "saved_model.pb")
    expected = ["exports/1/saved_model.pb", "exports/1/variables/new", "saved_model.pb"]
    if place == "s3":
        assert store.names(model_dir) == [f"bucket/model/{each}" for each in expected]
        assert store.get(f"{model_dir}/exports/1/saved_model.pb") == b"2"
    else:
        root = Path(model_dir)
        found = sorted(each.relative_to(root) for each in root.rglob("*") if each.is_file())
        assert [str(each) for each in found] == expected
        assert (root / "exports/1/saved_model.pb").read_text() == "2"


@pytest.mark.parametrize("name", ["", "../a", "/a", "a//b", "s3://x/y", "checkpoints/a"])
def test_a_name_that_leads_elsewhere_is_refused(
    make: Callable[..., Member], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="name="):
        make(model_dir=str(tmp_path / "model")).ctx.upload(tmp_path / "file", name)
    assert not (tmp_path / "model").exists()


def test_there_has_to_be_something_and_a_place_for_it(
    make: Callable[..., Member], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="there is no"):
        make(model_dir=str(tmp_path)).ctx.upload(tmp_path / "nothing")
    with pytest.raises(ValueError, match="this run has none"):
        context(model_dir=None).upload(tmp_path)
