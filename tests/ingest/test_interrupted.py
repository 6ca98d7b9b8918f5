"""`ctx.fetch` when something goes wrong in the middle of it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import s3fs
from fsspec.implementations.memory import MemoryFileSystem

from executor_agent.ingest import fetching
from executor_agent.ingest import store as store_module
from executor_agent.ingest.errors import FetchError, FetchStopped
from executor_agent.ingest.names import BOOKS
from tests.ingest.conftest import MakeMember
from tests.ingest.relay import Relay
from tests.object_store import ObjectStore

URL = "s3://bucket/large"
MIB = 1 << 20
FIRST = 8 * MIB  # so much is asked for first
CONTENT = os.urandom(FIRST + MIB)
HALFWAY = FIRST + MIB // 2
JOIN = 120.0


@pytest.fixture(autouse=True)
def _only_our_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs tries 25 times by itself, which takes 20 s where nobody answers."""
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)


@pytest.fixture
def relay(store: ObjectStore) -> Iterator[Relay]:
    store.put(URL, CONTENT)
    with Relay(store.port) as relay:
        yield relay


def through(store: ObjectStore, relay: Relay) -> dict[str, Any]:
    options = store.options_through(relay.url)
    return {**options, "config_kwargs": {"retries": {"max_attempts": 0}}}


def parts_in(folder: Path) -> list[int]:
    return [path.stat().st_size for path in (folder / BOOKS).glob("*.part")]


def test_a_cut_connection_is_tried_again_from_where_it_was(
    store: ObjectStore, relay: Relay, member: MakeMember, tmp_path: Path
) -> None:
    relay.cut(after=HALFWAY)
    threading.Thread(target=lambda: relay.interrupted.wait(JOIN) and relay.mend()).start()
    [path] = member().ctx.fetch(URL, shard=False, storage_options=through(store, relay))
    assert path.read_bytes() == CONTENT
    assert relay.ranges.count(f"bytes=0-{FIRST - 1}") == 1
    assert relay.ranges.count(f"bytes={FIRST}-{len(CONTENT) - 1}") > 1


def test_a_store_that_is_gone_for_a_while_and_a_restarted_member(
    member: MakeMember, tmp_path: Path
) -> None:
    to = tmp_path / "kept"
    with ObjectStore() as store:
        store.put(URL, CONTENT)
        with Relay(store.port) as relay:
            options = through(store, relay)
            relay.cut(after=HALFWAY)
            with pytest.raises(FetchError, match="however often it was tried"):
                member().ctx.fetch(URL, to, retries=1, storage_options=options)
            assert parts_in(to) == [FIRST]
            assert not (to / "large").exists()
            store.stop()  # and what it has with it
            store.start()
            store.put(URL, CONTENT)
            relay.mend()
            relay.ranges.clear()
            [path] = member().ctx.fetch(URL, to, storage_options=options)
            assert relay.ranges == [f"bytes={FIRST}-{len(CONTENT) - 1}"]
    assert path.read_bytes() == CONTENT
    assert parts_in(to) == []


def test_half_a_file_of_another_content_is_not_gone_on_with(
    store: ObjectStore, relay: Relay, member: MakeMember, tmp_path: Path
) -> None:
    to, options = tmp_path / "kept", through(store, relay)
    relay.cut(after=HALFWAY)
    with pytest.raises(FetchError):
        member().ctx.fetch(URL, to, retries=0, storage_options=options)
    relay.mend()
    changed = CONTENT[::-1]
    store.put(URL, changed)
    [path] = member().ctx.fetch(URL, to, storage_options=options)
    assert path.read_bytes() == changed


def test_a_damaged_half_is_found_by_the_stores_checksum(
    store: ObjectStore, relay: Relay, member: MakeMember, tmp_path: Path
) -> None:
    to, options = tmp_path / "kept", through(store, relay)
    relay.cut(after=HALFWAY)
    with pytest.raises(FetchError):
        member().ctx.fetch(URL, to, retries=0, storage_options=options)
    relay.mend()
    [part] = (to / BOOKS).glob("*.part")
    with open(part, "r+b") as file:
        file.write(b"damaged")
    [path] = member().ctx.fetch(URL, to, storage_options=options)
    assert path.read_bytes() == CONTENT


def test_a_store_that_does_not_answer_is_given_up(
    store: ObjectStore, relay: Relay, member: MakeMember
) -> None:
    relay.freeze(after=0)
    options = through(store, relay)
    with pytest.raises(FetchError, match=r"no answer within 0\.2 s"):
        member().ctx.fetch(URL, retries=1, timeout=0.2, storage_options=options)


def test_a_stop_ends_a_fetch_that_hangs(
    store: ObjectStore, relay: Relay, member: MakeMember
) -> None:
    relay.freeze(after=HALFWAY)
    hanging, options = member(), through(store, relay)
    raised: list[BaseException] = []

    def fetch() -> None:
        try:
            hanging.ctx.fetch(URL, timeout=10 * JOIN, storage_options=options)
        except FetchStopped as error:
            raised.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    assert relay.interrupted.wait(JOIN)
    hanging.stop.begin("test")
    thread.join(JOIN)
    assert len(raised) == 1
    assert not list(Path(hanging.ctx.local_dir, "data").glob("large"))


# -- the local disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    store: ObjectStore, member: MakeMember, small_disk: Path
) -> None:
    store.put_all({f"s3://bucket/{i}": bytes(600_000) for i in range(2)})
    with pytest.raises(FetchError, match=r"small has 1\.\d MB free, and 2 files need 1\.2 MB"):
        member().ctx.fetch(
            "s3://bucket/*", small_disk, shard=False, storage_options=store.storage_options
        )
    assert [path.name for path in small_disk.iterdir()] == [BOOKS]
    assert list((small_disk / BOOKS).iterdir()) == []


def test_a_disk_that_others_fill_meanwhile_is_said_and_no_half_file_left(
    store: ObjectStore, member: MakeMember, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if there had been room when we looked.
    monkeypatch.setattr(fetching, "_check_space", lambda *_: None)
    store.put_all({f"s3://bucket/{i}": bytes([i]) * 600_000 for i in range(4)})
    with pytest.raises(FetchError, match="became full while files were copied"):
        member().ctx.fetch(
            "s3://bucket/*", small_disk, shard=False, storage_options=store.storage_options
        )
    assert parts_in(small_disk) == []
    copies = [path for path in small_disk.iterdir() if path.is_file()]
    assert all(path.stat().st_size == 600_000 for path in copies)


# -- stores that are like S3 and yet not -----------------------------------------------------------


class EncryptedStore(MemoryFileSystem):  # type: ignore[misc]
    """Its ETags look like MD5s and are none, as with keys of AWS KMS."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    head: ClassVar[dict[str, Any]] = {}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().info(path, **kwargs), "ETag": f'"{"0" * 32}"'}

    def split_path(self, path: str) -> tuple[str, str, None]:
        return "bucket", path, None

    def call_s3(self, method: str, **_: Any) -> dict[str, Any]:
        assert method == "head_object"
        return self.head


@pytest.mark.parametrize("head", [{"ServerSideEncryption": "aws:kms"}, {}])
def test_the_etag_of_an_encrypted_file_is_not_taken_for_its_checksum(
    member: MakeMember, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    files = EncryptedStore()
    files.pipe_file("/bucket/x", b"content")
    monkeypatch.setattr(EncryptedStore, "head", head)
    monkeypatch.setattr(store_module, "_opened", lambda *_: (files, "/bucket/x"))
    if head:
        [path] = member().ctx.fetch("s3://bucket/x")
        assert path.read_bytes() == b"content"
    else:
        with pytest.raises(FetchError, match="its md5 is"):
            member().ctx.fetch("s3://bucket/x")
        [path] = member().ctx.fetch("s3://bucket/x", checksum=False)


def test_a_missing_library_is_named(member: MakeMember, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(FetchError, match=r"install tflease\[s3\]"):
        member().ctx.fetch("s3://bucket/x")
