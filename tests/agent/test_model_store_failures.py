"""What goes wrong between a chief and the store of `model_dir`: what is kept, and what is said."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs

from executor_agent.bootstrap import RAISED, _wait_for_uploads
from executor_agent.core.outcome import Outcome, Status
from executor_agent.model_files import StoreError, StoreFiles
from tests.agent.store_member import (
    DEADLINE,
    END_OF_INDEX,
    FIRST,
    GENERATION,
    Member,
    eventually,
    files,
    forget_connections,
)
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow

RETURNED = Outcome(Status.RETURNED)


@pytest.mark.parametrize("torn", ["no index", "half an index", "a shard too few"])
def test_a_torn_copy_is_passed_over(
    store: ObjectStore, make: Callable[..., Member], torn: str
) -> None:
    chief = make()
    chief.save(1, b"whole")
    chief.finish()
    second = f"s3://{GENERATION.format(2)}/ckpt-2"
    if torn != "a shard too few":
        store.put(f"{second}.data-00000-of-00001", b"torn")
    if torn != "no index":
        store.put(f"{second}.index", b"index" + END_OF_INDEX[: 3 if "half" in torn else 8])
    found = make("worker", 3).ctx.latest_checkpoint()
    assert found is not None
    assert Path(f"{found}.data-00000-of-00001").read_bytes() == b"whole"


KILLED = """
import os, sys, threading
from pathlib import Path
from typing import Any
from tests.agent.store_member import Member
from executor_agent.model_files import StoreFiles

put = StoreFiles.put
def slowly(self, local, path, moved):
    if path.endswith("ckpt-2.index"):
        print("data is there", flush=True)
        threading.Event().wait()
    put(self, local, path, moved)
StoreFiles.put = slowly
chief = Member(Path(sys.argv[1]))
chief.save(1)
chief.finish(30) if len(sys.argv) > 2 else None
chief.save(2)
threading.Event().wait()
"""


def test_a_chief_that_is_killed_in_mid_upload_leaves_the_one_before_it(
    store: ObjectStore, make: Callable[..., Member], tmp_path: Path
) -> None:
    """E6: half of it is in the store, and does not count."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "data is there\n"
    finally:
        child.kill()
        child.wait(DEADLINE)
        assert child.stdout is not None
        child.stdout.close()
    assert f"{FIRST}/ckpt-2.data-00000-of-00001" in store.names("s3://bucket/model")
    found = make("worker", 2).ctx.latest_checkpoint()
    assert found is not None
    assert found.endswith("/ckpt-1")


def test_a_store_that_is_away_for_a_while_costs_nothing(
    store: ObjectStore,
    make: Callable[..., Member],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is stopped; started again it is empty, as a store never is: its bucket is made
    again, and what was not copied yet is."""
    own = ObjectStore()
    own.start()
    try:
        os.environ.update(own.environment)  # `store` puts it back
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # ours are under test, not botocore's
        forget_connections()
        own.put("s3://bucket/keep", b"")
        chief = make()
        chief.save(1)
        eventually(lambda: len(own.names("s3://bucket/model")) == 3, "the first copy")
        own.stop()
        chief.save(2)
        finished = threading.Thread(target=chief.finish, daemon=True)
        finished.start()
        eventually(lambda: "could not be copied" in capsys.readouterr().err, "a word of it")
        own.start()
        own.put("s3://bucket/keep", b"")
        finished.join(DEADLINE)
        assert not finished.is_alive()
        assert set(files(2)) <= set(own.names("s3://bucket/model"))
    finally:
        own.stop()
        forget_connections()


def test_a_store_that_stays_away_is_an_error_that_says_what_is_where(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    chief = make()
    chief.save(1)
    eventually(lambda: len(store.names("s3://bucket/model")) == 3, "the first copy")
    store.demand_credentials()
    chief.save(2)
    with pytest.raises(StoreError) as raised:
        chief.finish(patience=1.0)
    text = str(raised.value)
    assert "did not get to s3://bucket/model" in text
    assert "Not copied: ckpt-2" in text
    assert "the newest that is there is ckpt-1" in text
    assert "PermissionError" in text
    eventually(
        lambda: all(each.name != "tflease-uploads" for each in threading.enumerate()),
        "nobody tries again what nobody waits for",
    )


def test_a_store_that_never_answers_does_not_hold_up_the_end_for_ever(
    store: ObjectStore, make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, answer = make(), threading.Event()
    put = StoreFiles.put

    def put_late(*args: Any) -> None:
        assert answer.wait(DEADLINE)
        put(*args)

    monkeypatch.setattr(StoreFiles, "put", put_late)
    chief.save(1)
    try:
        with pytest.raises(StoreError, match=r"nothing has moved(?s:.*)Not copied: ckpt-1"):
            chief.finish(patience=0.2)
    finally:
        answer.set()


def test_a_model_that_is_not_in_the_store_is_a_failure_of_the_member_that_has_returned(
    store: ObjectStore, make: Callable[..., Member], capsys: pytest.CaptureFixture[str]
) -> None:
    """E6. A member that has failed by itself keeps its own error."""
    chief = make()
    assert _wait_for_uploads(RETURNED, chief.ctx) is RETURNED, "nothing is saved yet"
    _ = chief.folder
    assert chief.ctx._store is not None
    chief.ctx._store._patience = 0.5
    store.demand_credentials()
    chief.save(1)
    outcome = _wait_for_uploads(RETURNED, chief.ctx)
    assert (outcome.status, outcome.exit_code) == (Status.RAISED, RAISED)
    assert "Not copied: ckpt-1" in outcome.message
    assert "Not copied: ckpt-1" in capsys.readouterr().err


def test_a_store_that_refuses_is_an_error_at_the_first_use(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    store.demand_credentials()
    chief = make()
    for use in (chief.ctx.latest_checkpoint, lambda: chief.ctx.checkpoint_dir):
        with pytest.raises(StoreError, match="check the credentials on the executors"):
            use()


def test_a_bucket_that_is_not_there_is_an_error_and_is_not_made(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    chief = make(model_dir="s3://buckte/model")
    with pytest.raises(StoreError, match="check the name of the bucket"):
        _ = chief.ctx.checkpoint_dir
    with pytest.raises(FileNotFoundError):
        s3fs.S3FileSystem().ls("buckte")


def test_a_library_that_is_missing_is_named(make: Callable[..., Member]) -> None:
    with pytest.raises(StoreError, match=r"model_dir=.*nosuch.*Protocol not known"):
        _ = make(model_dir="nosuch://bucket/model").ctx.checkpoint_dir


def test_an_index_without_its_data_is_an_error_where_it_is_saved(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    """Parameter servers have written it on disks of their own."""
    chief = make()
    folder = chief.folder
    with (
        pytest.raises(StoreError, match="experimental_io_device"),
        chief.ctx.section("checkpoint"),
    ):
        (folder / "ckpt-1.index").write_bytes(b"index" + END_OF_INDEX)
    with pytest.raises(StoreError, match="ckpt-1: TensorFlow wrote the index here"):
        chief.finish()


def test_what_tensorflow_says_of_parts_that_are_elsewhere_is_explained(
    store: ObjectStore, make: Callable[..., Member]
) -> None:
    """It fails so on a chief whose parameter servers write to disks of their own."""

    class NotFoundError(Exception):
        pass

    chief, error = make(), NotFoundError("part-00000-of-00002")
    chief.ctx._explain(error)
    assert not hasattr(error, "__notes__")
    (chief.folder / "ckpt-1_temp").mkdir()
    chief.ctx._explain(error)
    assert "experimental_io_device" in error.__notes__[0]
