"""What `ctx` offers for data that members read by themselves.

Owns: names, defaults and the documentation. What is behind `fetch` is imported when it is called.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from coordinator.core.stall_timeouts import Section
from executor_agent.core import shards
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal

if TYPE_CHECKING:
    from executor_agent.ingest.counters import FetchCounters

Item = TypeVar("Item")

_DATA = "data"
_counters_lock = threading.Lock()


class IngestMethods:
    """A part of `Context`."""

    job_name: str
    task_index: int
    cluster_spec: dict[str, list[str]]
    num_workers: int
    local_dir: str
    _stop: StopSignal
    _progress: ProgressReporter
    _fetched: "FetchCounters | None" = None

    def shard(self, items: Iterable[Item]) -> list[Item]:
        """This member's own part of `items`: every `num_workers`-th one, in the order given.

        The members that train, the chief first and then the workers, have parts that do not
        overlap and together are everything; sizes differ by at most one. The part is the same
        after a restart, and in every process that has the same list.

        Args:
            items: the same on all members: a list, a range, or anything with an order. With fewer
                items than members some get an empty list.

        Raises:
            ValueError: this member does not train: it is a ps or an evaluator.
            TypeError: a set, whose order is another one in every process, or a text.
        """
        place, count = shards.place_of(self.cluster_spec, self.job_name, self.task_index)
        return shards.share_of(items, place, count)

    def fetch(
        self,
        urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        to: str | os.PathLike[str] | None = None,
        *,
        parallel: int = 8,
        retries: int = 5,
        timeout: float = 30.0,
        checksum: str | Mapping[str, str] | Literal[False] | None = None,
        shard: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Copy this member's part of some files to the local disk.

        Files come through fsspec, from whatever it has a library for on the executors: `s3://`,
        `gs://`, `abfs://`, `hdfs://`, `https://`, local paths. Each appears under its name only
        when all of it is there and its size is right, and its checksum where the store tells one
        (the ETag of what S3 stored in one part) or `checksum` does. What is there already, whole or
        half, is not copied again as long as the store's file is the same; so a `to` that stays
        spares a restarted member the work. docs/ingest.md has the details.

        Args:
            urls: a url with `*`, `?` or `[...]`: all files that match, by path; one url; or a list
                of urls, taken as they are.
            to: a local directory, made when it is missing, and left at the end; None:
                `local_dir`/data, which goes with the member. Members on one host may have the same.
            parallel: how many files are copied at a time.
            retries: how often a piece that does not come is asked for again, with pauses that
                grow. A file that is missing and credentials that are wrong are never tried again.
            timeout: seconds that one answer of the store may take.
            checksum: "sha256:..." (or md5, sha1, ...) of the one file; or a mapping from url or
                file name to that, which may leave files out; False: not even what the store
                tells is compared, only sizes.
            shard: False: all of the files, on this member.
            storage_options: for fsspec: credentials, an endpoint.

        Returns:
            The local paths of this member's files, in the order of the urls.

        Raises:
            FetchError: a file is missing, the store refuses or cannot be reached, the disk is full,
                a checksum is wrong; the message says what to do. `FetchStopped`, one of them: this
                member was told to stop.
            ValueError: shard=True on a ps or an evaluator; a file of that name is in `to` and is no
                copy of this one; arguments that make no sense.
        """
        from executor_agent.ingest.copying import Patience
        from executor_agent.ingest.fetching import Wanted, fetch

        if parallel < 1 or retries < 0 or not timeout > 0:
            raise ValueError("parallel is 1 or more, retries 0 or more, and timeout above 0")
        if shard:
            self.shard(())  # whose share it is, is clear before anybody asks the store
        folder = Path(self.local_dir, _DATA) if to is None else Path(to)
        wanted = Wanted(
            urls,
            folder.absolute(),
            parallel,
            Patience(retries, timeout),
            checksum,
            dict(storage_options or {}),
        )
        # Nobody counts steps while files come: what is stuck ends by its own limits.
        entered = self._progress.enter(Section.IDLE)
        try:
            share = self.shard if shard else list[int]
            return fetch(wanted, share, self._stop.is_set, self._fetch_counters())
        finally:
            self._progress.look()
            self._progress.leave(entered)

    def _fetch_counters(self) -> "FetchCounters":
        from executor_agent.ingest.counters import FetchCounters

        with _counters_lock:
            if self._fetched is None:
                self._fetched = FetchCounters()
                self._progress.add_counters(self._fetched)
            return self._fetched
