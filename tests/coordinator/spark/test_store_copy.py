"""Event files on their way to a store: what is there already, and one that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.errors import InvalidRun
from coordinator.spark import store_copy
from coordinator.spark.store_copy import StoreCopy

fsspec = pytest.importorskip("fsspec")

URL = "memory://logs-of-a-test/run"


@pytest.fixture
def store() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    yield store
    if store.exists("/logs-of-a-test"):
        store.rm("/logs-of-a-test", recursive=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "_FIRST_DELAY", 0.01)


def contents(store: Any) -> dict[str, bytes]:
    root = "/logs-of-a-test/run/"
    return {str(each).removeprefix(root): store.cat(each) for each in store.find(root)}


class Away:
    """In the place of a store: it fails so many times."""

    def __init__(self, store: Any, times: int) -> None:
        self._store = store
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, path: str, mode: str) -> Any:
        self._left -= 1
        if self._left >= 0:
            raise ConnectionError("the store is away")
        return self._store.open(path, mode)


def test_what_has_changed_is_copied_to_a_store(tmp_path: Path, store: Any) -> None:
    said: list[str] = []
    (tmp_path / "worker-1" / "train").mkdir(parents=True)
    (tmp_path / "worker-1" / "train" / "a").write_bytes(b"one")
    copy = StoreCopy(tmp_path, URL, said.append)
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
    assert said == []


def test_a_store_that_fails_is_said_once_and_the_files_stay(tmp_path: Path) -> None:
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


def test_what_an_earlier_run_has_left_there_is_not_touched(tmp_path: Path, store: Any) -> None:
    """As in a local directory."""
    store.pipe("/logs-of-a-test/run/a", b"of another run")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a.2").write_bytes(b"of a second attempt")
    copy = StoreCopy(tmp_path, URL)
    assert copy.copy()
    (tmp_path / "a").write_bytes(b"one two")
    assert copy.finish(20.0)
    assert contents(store) == {
        "a": b"of another run",
        "a.2": b"one two",
        "a.2.2": b"of a second attempt",
    }


def test_a_store_that_is_away_for_a_moment_at_the_end_is_waited_for(
    tmp_path: Path, store: Any
) -> None:
    said: list[str] = []
    copy = StoreCopy(tmp_path, URL, said.append)
    (tmp_path / "a").write_bytes(b"one")
    assert copy.copy()
    copy._store = Away(store, 3)
    (tmp_path / "a").write_bytes(b"one two")
    assert copy.finish(20.0)
    assert contents(store) == {"a": b"one two"}
    (sentence,) = said
    assert "cannot be copied" in sentence


def test_one_that_never_took_anything_holds_up_no_end(tmp_path: Path, store: Any) -> None:
    said: list[str] = []
    copy = StoreCopy(tmp_path, URL, said.append)
    (tmp_path / "a").write_bytes(b"one")
    away = copy._store = Away(store, 1_000)
    assert not copy.finish(20.0)
    assert away._left == 999
    assert said[-1] == f"not all event files are in {URL}; they are in {tmp_path}"


def test_whatever_a_store_raises_when_it_is_opened_refuses_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(InvalidRun, match="cannot be opened: RuntimeError: no credentials"):
        StoreCopy(tmp_path, "memory://logs-of-a-test/run")
