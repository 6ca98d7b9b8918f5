"""Where files come from: what fsspec knows of them, and their bytes, in calls that can be left.

Owns everything that speaks to fsspec, which is imported when it is first used. Must not know the
local disk.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from executor_agent.ingest import names
from executor_agent.ingest.errors import FetchError, Mismatch, missing_library

Options = Mapping[str, Any]
Answer = TypeVar("Answer")

# What tells one content of a file from the next, by store: the first of these that it has.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "modificationTime",
    "modification_time",
    "created",
)
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_S3 = ("s3", "s3a")
_EXPRESS = "--x-s3"  # buckets whose ETags are no digests end so


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a store, before anything was asked about it."""

    url: str = field(repr=False)  # it may have a secret in it
    files: Any = field(repr=False)
    """fsspec's file system."""
    path: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of a store as it was when the store was asked."""

    source: Source
    size: int | None
    """None: the store does not say."""
    version: str | None
    """Another one when the content is another one; None: the store does not tell."""
    md5: str | None
    """What the store seems to give as the MD5 of the content."""


def sources_of(urls: Sequence[str], options: Options) -> list[Source]:
    """Raises FetchError: a library is missing; ValueError: there is no such protocol."""
    return [Source(url, *_opened(url, options)) for url in urls]


def matching(pattern: str, options: Options) -> list[Remote]:
    """All files that match, in the order of their paths."""
    files, path = _opened(pattern, options)
    files.invalidate_cache()
    found = files.glob(path, detail=True)
    remotes = []
    for name in sorted(found):
        info = found[name]
        if info.get("type") == "file" and not name.endswith("/"):
            remotes.append(_remote(Source(_url_of(files, name, pattern), files, name), info))
    if not remotes:
        _look_at_root(files, path)
    return remotes


def _look_at_root(files: Any, path: str) -> None:
    """A glob takes what it may not list for empty: this raises what the store says of it."""
    root = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
    if root:
        files.ls(root, detail=False)


def ask(source: Source) -> Remote:
    """What the store says of it now. Raises what the store's library does."""
    source.files.invalidate_cache(_parent(source.path))
    info = source.files.info(source.path)
    if info.get("type") == "directory":
        raise IsADirectoryError(f"it is a folder: {names.shown(source.url)}/* is what is in it")
    return _remote(source, info)


def read(remote: Remote, start: int, end: int) -> "Future[bytes]":
    """The bytes from `start` to before `end`, soon. Cancelling it ends it at once, or at least the
    waiting for it."""
    source = remote.source
    files, path = source.files, source.path
    whole = remote.size is None
    limits = {} if whole else {"start": start, "end": end}
    loop = getattr(files, "loop", None)
    if getattr(files, "async_impl", False) and isinstance(loop, asyncio.AbstractEventLoop):
        return asyncio.run_coroutine_threadsafe(files._cat_file(path, **limits), loop)
    return in_thread(lambda: bytes(files.cat_file(path, **limits)))


def in_thread(call: Callable[[], Answer]) -> "Future[Answer]":
    """`call()` in a thread of its own, which nobody waits for when nobody wants its answer."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            answer, error = call(), None
        except BaseException as raised:
            answer, error = None, raised
        with suppress(InvalidStateError):  # it was cancelled: nobody asks for the answer any more
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast(Answer, answer))

    threading.Thread(target=run, name="tflease-fetch-call", daemon=True).start()
    return future


def checked(remote: Remote, data: bytes, start: int, end: int) -> bytes:
    """What was asked for. Of a store that sends the whole file whatever it is asked, all from
    `start` on: it would send everything again for each piece.

    Raises Mismatch: it is shorter or longer.
    """
    if remote.size is None or len(data) == end - start:
        return data
    if len(data) == remote.size:
        return data[start:]
    raise Mismatch(
        f"{len(data):,} bytes came where {end - start:,} were asked for, of a file that has "
        f"{remote.size:,} as the store says"
    )


def etag_is_no_md5(remote: Remote) -> bool:
    """Whether the store says that the file is encrypted with a key that makes its ETag something
    else than the MD5 of its content. Asked when they differ."""
    source = remote.source
    if not set(_S3) & set(_protocols(source.files)):
        return False
    bucket, key, version = source.files.split_path(source.path)
    asked = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    head = source.files.call_s3("head_object", **asked)
    kms = str(head.get("ServerSideEncryption") or "").startswith("aws:kms")
    return kms or bool(head.get("SSECustomerAlgorithm"))


def _opened(url: str, options: Options) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url, **options)
    except ImportError as error:
        raise FetchError(missing_library(names.shown(url), error)) from error
    return files, path


def _remote(source: Source, info: Mapping[str, Any]) -> Remote:
    size = info.get("size")
    version = next((f"{key}:{info[key]}" for key in _VERSIONS if info.get(key)), None)
    return Remote(source, int(size) if size is not None else None, version, _md5(source, info))


def _md5(source: Source, info: Mapping[str, Any]) -> str | None:
    """Of S3 where it was stored in one part, and unless it is encrypted in some ways."""
    if not set(_S3) & set(_protocols(source.files)):
        return None
    if source.path.split("/", 1)[0].endswith(_EXPRESS):
        return None
    found = _MD5.fullmatch(str(info.get("ETag") or ""))
    return found[1] if found else None


def _protocols(files: Any) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _url_of(files: Any, path: str, pattern: str) -> str:
    """As the user would write it: with the scheme of the pattern."""
    if "::" in pattern or "://" not in pattern:
        return str(files.unstrip_protocol(path)) if "://" in pattern else path
    scheme = pattern.split("://", 1)[0]
    return path if "://" in path else f"{scheme}://{path}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or path
