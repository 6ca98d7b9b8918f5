"""`ctx.fetch` from a server that speaks S3's protocol."""

from __future__ import annotations

import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from executor_agent.ingest.control import Control
from executor_agent.ingest.copying import FileCopy, Patience, asked
from executor_agent.ingest.counters import FetchCounters
from executor_agent.ingest.errors import FetchError, FetchStopped
from executor_agent.ingest.local_copy import LocalCopy
from executor_agent.ingest.names import BOOKS
from executor_agent.ingest.store import sources_of
from tests.ingest.conftest import MakeMember
from tests.object_store import ObjectStore

FILES = {f"s3://bucket/data/part-{i}": bytes([65 + i]) * (1000 * i) for i in range(7)}


def parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / BOOKS).glob("*.part"))


def test_members_get_all_files_and_none_twice(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    store.put_all(FILES)
    got: dict[str, bytes] = {}
    for name in ("chief:0", "worker:0", "worker:1"):
        ctx = member(name).ctx
        paths = ctx.fetch("s3://bucket/data/part-*", storage_options=store.storage_options)
        assert paths == sorted(paths)
        assert all(path.parent == Path(ctx.local_dir, "data") for path in paths)
        for path in paths:
            assert path.name not in got
            got[path.name] = path.read_bytes()
    assert got == {url.rpartition("/")[2]: data for url, data in FILES.items()}


def test_a_list_is_taken_in_its_order_and_names_as_they_are(
    store: ObjectStore, member: MakeMember
) -> None:
    urls = ["s3://bucket/b/x [1]*.csv", "s3://bucket/a/x [1]*.csv", "s3://bucket/a/ü %20+&?#"]
    store.put_all({url: url.encode() for url in urls})
    paths = member().ctx.fetch(urls, shard=False, storage_options=store.storage_options)
    assert [path.read_bytes().decode() for path in paths] == urls


def test_who_does_not_train_fetches_only_without_shares(
    store: ObjectStore, member: MakeMember
) -> None:
    store.put("s3://bucket/x", b"x")
    ctx = member("evaluator:0").ctx
    with pytest.raises(ValueError, match="does not train"):
        ctx.fetch("s3://bucket/x", storage_options=store.storage_options)
    [path] = ctx.fetch("s3://bucket/x", shard=False, storage_options=store.storage_options)
    assert path.read_bytes() == b"x"


def test_what_is_complete_is_not_copied_again_and_what_changed_is(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    ctx, to = member().ctx, tmp_path / "kept"
    store.put_all({"s3://bucket/a": b"old", "s3://bucket/b": b"same"})

    def fetched() -> dict[str, tuple[bytes, int]]:
        options = store.storage_options
        paths = ctx.fetch("s3://bucket/*", to, shard=False, storage_options=options)
        return {path.name: (path.read_bytes(), path.stat().st_ino) for path in paths}

    first = fetched()
    assert fetched() == first
    store.put("s3://bucket/a", b"new")
    second = fetched()
    assert second["a"][0] == b"new"
    assert second["b"] == first["b"]


def test_another_file_of_the_same_name_does_not_replace_a_copy(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    ctx = member().ctx
    store.put_all({"s3://bucket/train/x": b"train", "s3://bucket/test/x": b"test"})
    [path] = ctx.fetch("s3://bucket/train/x", storage_options=store.storage_options)
    with pytest.raises(ValueError, match="is already the copy of s3://bucket/train/x"):
        ctx.fetch("s3://bucket/test/x", storage_options=store.storage_options)
    assert path.read_bytes() == b"train"


def test_of_two_fetches_at_a_time_the_later_one_does_not_replace_another_file_either(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Both have looked before either was done."""
    store.put_all({"s3://bucket/train/x": b"train", "s3://bucket/test/x": b"test"})
    control, patience = Control(), Patience(0, 30.0)
    copies: list[FileCopy] = []
    urls = ["s3://bucket/train/x", "s3://bucket/test/x"]
    for source in sources_of(urls, store.storage_options):
        local = LocalCopy(tmp_path, "x")
        remote = asked(control, patience, source)
        local.check_origin(remote)
        local.prepare()
        copies.append(FileCopy(remote, local, None, control, patience, FetchCounters()))
    copies[0].run()
    with pytest.raises(ValueError, match="is already the copy of s3://bucket/train/x"):
        copies[1].run()
    assert (tmp_path / "x").read_bytes() == b"train"


@pytest.mark.parametrize("theirs", ["a file", "a link to nothing"])
def test_a_file_of_the_users_own_is_not_replaced(
    store: ObjectStore, member: MakeMember, tmp_path: Path, theirs: str
) -> None:
    store.put_all({"s3://bucket/x": b"the store's", "s3://bucket/y": b"y"})
    own = tmp_path / "x"
    if theirs == "a file":
        own.write_bytes(b"the user's")
    else:
        own.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"/x is there and was not put there by ctx.fetch"):
        member().ctx.fetch(
            "s3://bucket/*", tmp_path, shard=False, storage_options=store.storage_options
        )
    assert own.is_symlink() or own.read_bytes() == b"the user's"
    assert not (tmp_path / "y").exists()


def test_a_copy_that_was_cut_off_between_its_last_steps_is_made_again(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    """Its record was not written any more; that of its part was not removed yet."""
    store.put("s3://bucket/x", b"x")
    options = store.storage_options
    [path] = member().ctx.fetch("s3://bucket/x", tmp_path, storage_options=options)
    [record] = (tmp_path / BOOKS).glob("*.json")
    record.rename(record.with_suffix(".part.json"))
    assert member().ctx.fetch("s3://bucket/x", tmp_path, storage_options=options) == [path]
    assert path.read_bytes() == b"x"
    assert record.exists()


@pytest.mark.parametrize(
    "urls, text",
    [
        (["s3://bucket/there", "s3://bucket/nope"], "s3://bucket/nope does not exist"),
        ("s3://nobody/x", "s3://nobody/x does not exist"),
        ("s3://nobody/*", "does not exist"),
        ("s3://bucket/no-*", r"no file matches s3://bucket/no-\*"),
        ("s3://bucket", "is a folder|names no file"),
    ],
)
def test_what_is_missing_is_said_at_once(
    store: ObjectStore, member: MakeMember, urls: str | list[str], text: str
) -> None:
    store.put("s3://bucket/there", b"x")
    with pytest.raises(FetchError, match=text):
        # With tries to come it would be minutes: a pause of 15 s follows the sixth.
        member().ctx.fetch(urls, shard=False, retries=50, storage_options=store.storage_options)


@pytest.mark.parametrize("urls", ["s3://bucket/x", "s3://bucket/*"])
def test_wrong_credentials_are_said_at_once(
    store: ObjectStore, member: MakeMember, urls: str
) -> None:
    store.put("s3://bucket/x", b"x")
    store.demand_credentials()
    with pytest.raises(FetchError, match=r"the store refuses .* credentials"):
        member().ctx.fetch(urls, retries=50, storage_options=store.storage_options)


def test_a_wrong_checksum_is_found_and_nothing_is_left(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    ctx, to, data = member().ctx, tmp_path / "to", b"x" * 5000
    store.put("s3://bucket/x", data)
    right, wrong = f"sha256:{hashlib.sha256(data).hexdigest()}", "sha256:" + "0" * 64
    options = store.storage_options
    with pytest.raises(FetchError, match="its sha256 is"):
        ctx.fetch("s3://bucket/x", to, checksum=wrong, storage_options=options)
    assert not (to / "x").exists()
    assert parts_in(to) == []
    [path] = ctx.fetch("s3://bucket/x", to, checksum={"x": right}, storage_options=options)
    assert path.read_bytes() == data
    # What lies there already has to have it, too.
    with pytest.raises(FetchError, match="its sha256 is"):
        ctx.fetch("s3://bucket/x", to, checksum=wrong, storage_options=options)
    with pytest.raises(ValueError, match="no checksum"):
        ctx.fetch("s3://bucket/x", to, checksum="sha256:12", storage_options=options)


def test_two_members_of_one_host_share_a_directory(
    store: ObjectStore, member: MakeMember, tmp_path: Path
) -> None:
    store.put_all({f"s3://bucket/{i}": bytes([i]) * 300_000 for i in range(10)})
    to = tmp_path / "to"
    got: list[list[bytes]] = []

    def fetch(name: str) -> None:
        options = store.storage_options
        paths = member(name).ctx.fetch("s3://bucket/*", to, shard=False, storage_options=options)
        got.append([path.read_bytes() for path in paths])

    threads = [threading.Thread(target=fetch, args=(f"worker:{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [[bytes([i]) * 300_000 for i in range(10)]] * 2
    assert parts_in(to) == []


def test_a_member_that_is_told_to_stop_stops_fetching(
    store: ObjectStore, member: MakeMember
) -> None:
    store.put("s3://bucket/x", b"x")
    stopped = member()
    stopped.stop.begin("test")
    with pytest.raises(FetchStopped, match="told to stop"):
        stopped.ctx.fetch("s3://bucket/x", storage_options=store.storage_options)


def test_progress_is_told_and_nobody_waits_for_steps_meanwhile(
    store: ObjectStore, member: MakeMember
) -> None:
    store.put_all(FILES)
    fetching = member()
    fetching.ctx.report_progress(1)
    options = store.storage_options
    fetching.ctx.fetch("s3://bucket/data/*", shard=False, storage_options=options)
    fetching.progress.close(5.0)
    size = sum(map(len, FILES.values()))
    told = {"fetch/bytes": size, "fetch/total_bytes": size, "fetch/files": len(FILES)}
    assert {key: fetching.said[-1]["metrics"][key] for key in told} == told
    assert "idle" in [each["section"] for each in fetching.said]
    assert fetching.said[-1]["section"] == "step"


def test_local_files_and_those_in_memory_come_the_same_way(
    member: MakeMember, tmp_path: Path
) -> None:
    import fsspec

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(b"a")
    fsspec.filesystem("memory").pipe_file("/ingest/b.csv", b"b")
    ctx = member().ctx
    [local] = ctx.fetch(f"{tmp_path}/in/*.csv", shard=False)
    [remote] = ctx.fetch("memory://ingest/*.csv", shard=False)
    assert (local.read_bytes(), remote.read_bytes()) == (b"a", b"b")
    assert ctx.fetch([]) == []


def test_a_web_server_without_ranges_serves_large_files_too(
    member: MakeMember, tmp_path: Path
) -> None:
    source = tmp_path / "served"
    source.mkdir()
    content = bytes(range(256)) * (40 << 10)  # more than one piece
    (source / "x.bin").write_bytes(content)
    (source / "empty").write_bytes(b"")

    asked_for: list[str] = []

    class Served(SimpleHTTPRequestHandler):  # it sends whole files, whatever it is asked
        def do_GET(self) -> None:
            asked_for.append(self.path)
            super().do_GET()

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(source))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}"
            urls = [f"{address}/x.bin?signature=secret", f"{address}/empty"]
            paths = member().ctx.fetch(urls, shard=False)
            with pytest.raises(FetchError, match="nope does not exist") as caught:
                member("worker:0").ctx.fetch(f"{address}/nope?signature=secret", shard=False)
        finally:
            server.shutdown()
            thread.join()
    assert [path.read_bytes() for path in paths] == [content, b""]
    assert asked_for.count("/x.bin?signature=secret") == 1  # not once for each piece
    assert "secret" not in str(caught.value)
