"""`cluster.train` of a streaming DataFrame: each micro-batch is an epoch of one train without end.

Structured Streaming calls back with each micro-batch; it is fed as any epoch is, and only then does
Spark write it into the checkpoint. So a batch that was under way when something ended comes again:
in the same run it is known by its number and not fed twice, in another run it is fed again from its
start (at least once), because the members that had a part of it are gone. Where the gang may be
restarted a batch is fed when the members have read it, and to the next generation again if need be.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from coordinator.core.errors import FeatureUnavailable, InvalidRun, TfleaseError
from coordinator.core.model import RunView
from coordinator.spark.feed import consumers, preflight
from coordinator.spark.feed.counters import Counters
from coordinator.spark.feed.feeding import DEFAULT_FEED, FIRST_EPOCH, Feeding, OpenTrain
from coordinator.spark.feed.report import EpochReport, FeedReport
from coordinator.spark.feed.watch import FeedStopped, GangRestarts, is_in_trouble

_log = logging.getLogger("tflease")

_INTERVAL = 0.2  # seconds between two looks at the run and at the stream
_KEPT_EPOCHS = 1000
"""Micro-batches that a report lists one by one; older ones are summed up, for a stream may run for
years."""

_CLOSE_TIMEOUT = 30.0
"""Seconds that a stream may hold up the end of its run."""

_CUT_SHORT = "the stream was stopped by the driver"


class StreamFeeds:
    """The streams of one run. It knows which micro-batches the run has had, for a stream that is
    started again from its checkpoint."""

    def __init__(self, feeding: Feeding) -> None:
        self._feeding = feeding
        self._lock = threading.Lock()
        self._delivered: dict[str, int] = {}
        self._streams: list[FeedStream] = []

    def train(
        self,
        data: Any,
        *,
        checkpoint_location: str | None = None,
        feed: str = DEFAULT_FEED,
        deterministic: bool | None = None,
        feed_timeout: float = 600.0,
        trigger: Mapping[str, Any] | None = None,
    ) -> FeedStream:
        """Starts the stream and returns at once.

        Args:
            data: a streaming DataFrame.
            checkpoint_location: where Spark writes how far the stream has been fed. Default:
                a directory of Spark's that no later stream finds again.
            feed, deterministic, feed_timeout: as in ``train``; the last is for each micro-batch.
            trigger: what ``DataStreamWriter.trigger`` takes: ``{"processingTime": "10 seconds"}``,
                ``{"availableNow": True}``. Default: one micro-batch after the other.

        Raises as ``Feeding.train`` does; FeatureUnavailable for Spark Connect.
        """
        if type(data).__module__.startswith("pyspark.sql.connect"):
            raise FeatureUnavailable(
                "a stream of Spark Connect hands its micro-batches to a process on Spark's server, "
                "which has no hold of this run: start the stream from a classic session"
            )
        if not preflight.is_streaming(data):
            raise InvalidRun("this DataFrame is no stream: pass num_epochs to train")
        preflight.check_data(data)
        train = self._feeding.open_train(feed=feed, epochs=None, feed_timeout=feed_timeout)
        stream = FeedStream(self._feeding, train, self._is_new, self._has, deterministic)
        try:
            stream._start(_writer(data, checkpoint_location, trigger))
        except BaseException as error:
            self._feeding.abandon_train(train, error)
            raise
        with self._lock:
            self._streams = [each for each in self._streams if each.is_active] + [stream]
        return stream

    def close(self) -> None:
        """Before the run ends: stops all streams, at once."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            try:
                stream.stop(finish_batch=False, timeout=_CLOSE_TIMEOUT)
            except TimeoutError:  # the end of its run ends it
                _log.warning("%r did not end within %g s", stream, _CLOSE_TIMEOUT)

    def _is_new(self, query: str, batch: int) -> bool:
        with self._lock:
            return batch > self._delivered.get(query, -1)

    def _has(self, query: str, batch: int) -> None:
        with self._lock:
            self._delivered[query] = batch


def _writer(data: Any, checkpoint_location: str | None, trigger: Mapping[str, Any] | None) -> Any:
    writer = data.writeStream
    if checkpoint_location is not None:
        writer = writer.option("checkpointLocation", checkpoint_location)
    return writer.trigger(**trigger) if trigger else writer


class _Refused(Exception):
    """A micro-batch that comes when no more are wanted: Spark must not take it for delivered."""


class FeedStream:
    """A stream that feeds a run, from ``cluster.train(streaming_df)``.

    Attributes:
        query: Spark's own handle, a ``StreamingQuery``, for its status and progress.
    """

    query: Any

    def __init__(
        self,
        feeding: Feeding,
        train: OpenTrain,
        is_new: Callable[[str, int], bool],
        has: Callable[[str, int], None],
        deterministic: bool | None,
    ) -> None:
        """Not public: use ``cluster.train``."""
        self._feeding = feeding
        self._train = train
        self._is_new = is_new
        self._has = has
        self._deterministic = deterministic
        self._lock = threading.Lock()
        self._is_started = threading.Event()  # `query` is set
        self._is_delivering = False
        self._asked = threading.Event()  # somebody wants the end
        self._is_cut_short = False
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._report: FeedReport | None = None
        self._keeper = threading.Thread(target=self._keep, name="tflease-stream", daemon=True)

    def __repr__(self) -> str:
        state = "active" if self.is_active else "ended"
        return f"<FeedStream {self._train.feed!r}, {state}, {self.report().rows:,} rows>"

    @property
    def is_active(self) -> bool:
        """Whether more may come."""
        return not self._done.is_set()

    def report(self) -> FeedReport:
        """What has been fed so far; each epoch is a micro-batch, and its number is Spark's plus
        one."""
        return self._report or self._train.report()

    def stop(self, *, finish_batch: bool = True, timeout: float | None = 600.0) -> FeedReport:
        """Ends the stream; the members hear that it was all. Idempotent.

        Args:
            finish_batch: whether a micro-batch that is being fed is fed to its end. One that is not
                comes again when the stream is started from its checkpoint.
            timeout: seconds to wait for the end.

        Raises TimeoutError, when it goes on for longer; what was asked for still holds.
        """
        if not finish_batch:
            self._is_cut_short = True
            self._train.watch.stop(_CUT_SHORT)  # also where it is the keeper that is waited for
        self._asked.set()
        if not self._done.wait(timeout):
            raise TimeoutError(f"the micro-batch under way was not fed within {timeout:g} s")
        return self.report()

    def wait(self, timeout: float | None = None) -> FeedReport:
        """Waits for the end of the stream: ``stop``, its source is exhausted, or members that want
        no more (``report().stopped`` says why).

        Raises what ended it otherwise: as ``train`` of a DataFrame, or Spark's
        StreamingQueryException. TimeoutError: it still runs, and goes on.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"the stream still runs after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self.report()

    # -- Spark's thread --------------------------------------------------------------------

    def _start(self, writer: Any) -> None:
        self.query = writer.foreachBatch(self._deliver).start()
        self._is_started.set()
        self._keeper.start()

    def _deliver(self, frame: Any, batch: int) -> None:
        """One micro-batch. Whatever it raises, Spark does not take the batch for delivered."""
        self._is_started.wait()
        with self._lock:
            if self._asked.is_set() or self._error is not None:
                raise _Refused("the stream is being stopped")
            self._is_delivering = True
        try:
            if self._is_new(str(self.query.id), batch):
                self._feed(frame, batch)
        except BaseException as error:
            with self._lock:
                if not (self._is_cut_short or isinstance(error, _Refused)):
                    self._error = self._error or error
            raise
        finally:
            self._is_delivering = False

    def _feed(self, frame: Any, batch: int) -> None:
        self._feeding.feed_batch(
            self._train, FIRST_EPOCH + batch, frame, deterministic=self._deterministic
        )
        if self._train.stopped:
            self._asked.set()
            raise _Refused(self._train.stopped)
        self._has(str(self.query.id), batch)
        fold(self._train.reports)

    # -- a thread of ours ------------------------------------------------------------------

    def _keep(self) -> None:
        """Until the stream has ended, for whatever reason; then its train."""
        try:
            while not self._has_ended():
                self._look()
                if self._is_cut_short:
                    self._feeding.gateway.cancel(self._train.tags[-1])
                self._done.wait(_INTERVAL)  # which is set by nobody else
        except Exception as error:  # whoever waits must not wait for ever
            with self._lock:
                self._error = self._error or error
        finally:
            self._end()

    def _has_ended(self) -> bool:
        """Stops the query, when that is asked for and can be done without cutting anything off: it
        is between two micro-batches. The next one is refused, which ends it as well."""
        if not self.query.isActive:
            return True
        wants_end = self._asked.is_set() or self._error is not None
        if not wants_end or self._is_delivering:
            return False
        # A source that does not answer keeps a trigger active for as long as it likes.
        return self._is_cut_short or not self.query.status["isTriggerActive"]

    def _look(self) -> None:
        """Between two micro-batches nobody else sees that the run has ended."""
        if self._is_delivering or self._asked.is_set():
            return
        run, lost = self._feeding.session.view, self._feeding.session.lost
        if lost is not None:
            raise lost
        if is_in_trouble(run) or self._wants_no_more(run):
            try:
                self._train.watch.during(lambda _: None)
            except FeedStopped as reason:
                self._train.stopped = str(reason)
                self._asked.set()
            except GangRestarts:
                pass  # the next micro-batch goes to the next generation

    def _wants_no_more(self, run: RunView) -> bool:
        members = consumers.fed_members(self._feeding.roles)
        stopped = Counters.of(run, self._train.feed, self._train.number, members).stopped()
        return len(stopped) == len(members)

    def _end(self) -> None:
        try:
            with suppress(Exception):  # the session may have been stopped
                self.query.stop()
            self._take_error()
            if self._error is not None:
                self._feeding.abandon_train(self._train, self._error)
            else:
                reason = self._train.stopped or (_CUT_SHORT if self._is_cut_short else "")
                self._report = self._feeding.end_train(self._train, reason)
        except TfleaseError as error:
            self._error = self._error or error
        finally:
            self._report = self._report or self._train.report()
            self._done.set()

    def _take_error(self) -> None:
        """Spark's own, unless we know the cause, or it was our refusal of a batch."""
        with self._lock:
            is_known = self._error is not None or self._asked.is_set()
            if not is_known:
                with suppress(Exception):
                    self._error = self.query.exception()


def fold(reports: list[EpochReport], kept: int = _KEPT_EPOCHS) -> None:
    """Sums up the older half, in place, when there are too many: the first report is the sum."""
    if len(reports) <= kept:
        return
    old = reports[: kept // 2]
    members: dict[str, int] = {}
    for each in old:
        for name, rows in each.members.items():
            members[name] = members.get(name, 0) + rows
    steps = [each.steps for each in old if each.steps is not None]
    reports[: kept // 2] = [
        replace(
            old[-1],
            rows=sum(each.rows for each in old),
            seconds=sum(each.seconds for each in old),
            steps=sum(steps) if steps else None,
            left_out=sum(each.left_out for each in old),
            members=members,
            bytes=sum(each.bytes for each in old),
            again=sum(each.again for each in old),
            partitions=sum(each.partitions for each in old),
        )
    ]
