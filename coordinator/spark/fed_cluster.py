"""What a cluster offers to whoever feeds it from Spark (`InputMode.SPARK`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.core.errors import InvalidRun
from coordinator.spark.feed import inference, preflight
from coordinator.spark.feed.feeding import DEFAULT_FEED, RESUME, Feeding
from coordinator.spark.feed.report import FeedReport
from coordinator.spark.feed.streaming import FeedStream, StreamFeeds


class FedCluster:
    """A part of `TFCluster`."""

    def __init__(self, feeding: Feeding) -> None:
        self._feeding = feeding
        self._streams = StreamFeeds(feeding)

    def train(
        self,
        data: Any,
        num_epochs: int = 1,
        *,
        feed: str = DEFAULT_FEED,
        deterministic: bool | None = None,
        feed_timeout: float = 600.0,
        on_restart: str = RESUME,
        checkpoint_location: str | None = None,
        trigger: Mapping[str, Any] | None = None,
    ) -> FeedReport | FeedStream:
        """Feeds all rows of ``data`` to the members, ``num_epochs`` times, and returns when they
        have taken them; ``wait`` then waits for the training itself. In ``main_fun`` they come out
        of ``ctx.dataset(...)``, ``ctx.feed_batches(...)`` or ``ctx.get_data_feed(...)``.

        Chief and workers are fed, or where there are parameter servers the workers alone. When the
        members want no more (``terminate``, the end of ``main_fun``) this ends early, without an
        error, and the report says so.

        Args:
            data: a DataFrame; an RDD of tuples, dicts, Rows or NumPy arrays, which is slower; or a
                streaming DataFrame.
            num_epochs: how often. A DataFrame that is not cached is computed anew each time.
            feed: its name, where a program has several (``ctx.dataset(..., feed="validation")``).
            deterministic: whether a partition that is computed again has the same rows in the same
                order. Default: what Spark says; where it does not say (Spark Connect), no. A
                wrong yes loses rows when a task is tried again; a no means that some may come
                twice then, and the report says so.
            feed_timeout: seconds without any movement, in Spark and in the members, after which
                this is given up.
            on_restart: what becomes of the epoch under way when the gang is restarted
                (``TFCluster.run(..., restart=RestartPolicy(...))``). "resume": the partitions that
                the members had not read to their end are sent again, whole. "repeat": the epoch
                begins again. The default moves on however often the gang fails; "repeat" never
                comes to the end of an epoch that takes longer than the gang lives. A partition is
                left out only where Spark makes the same rows of it again (``deterministic``); else
                "resume" repeats, too. A stream: docs/feeding.md.
            checkpoint_location: of a stream: where Spark writes how far it has been fed, so that a
                later one goes on from there.
            trigger: of a stream: what ``DataStreamWriter.trigger`` takes, such as
                ``{"processingTime": "10 seconds"}``. Default: one micro-batch after the other.

        Returns:
            A FeedReport; of a stream a FeedStream, at once.

        Raises:
            InvalidRun: arguments that make no sense, a run that is not fed, nobody to feed.
            FeedMismatch: columns of types that cannot be fed; names them.
            SparkUnusable, NotEnoughSlots: Spark would feed twice, or has no slot to feed from.
            FeedFailed: Spark's job failed by itself; the members live on.
            FeedStalled: nothing moved for ``feed_timeout``; says who waits for what.
            FeedMiscounted: Spark sent another number of rows than the members took.
            TrainingFailed, RunCancelled, CoordinatorUnavailable: as ``wait``.
        """
        is_streaming = preflight.is_streaming(data)
        if is_streaming and num_epochs != 1:
            raise InvalidRun(
                f"num_epochs={num_epochs} of a stream: it is fed as it comes, once; leave it out"
            )
        if not is_streaming and (checkpoint_location is not None or trigger is not None):
            raise InvalidRun(
                "checkpoint_location and trigger are for a stream (spark.readStream...), and this "
                "is none: leave them out"
            )
        if is_streaming:
            return self._streams.train(
                data,
                checkpoint_location=checkpoint_location,
                feed=feed,
                deterministic=deterministic,
                feed_timeout=feed_timeout,
                trigger=trigger,
            )
        return self._feeding.train(
            data,
            num_epochs,
            feed=feed,
            deterministic=deterministic,
            feed_timeout=feed_timeout,
            on_restart=on_restart,
        )

    def stop_feed(self, reason: str = "stopped by the driver", *, feed: str = DEFAULT_FEED) -> bool:
        """Ends the ``train`` of a DataFrame or RDD that is under way in another thread, which then
        returns a report whose ``stopped`` is ``reason``. The members' dataset ends; the run goes
        on, and may be fed again. (A stream: ``FeedStream.stop``.)

        Returns:
            Whether there was one. It may still take a moment.
        """
        return self._feeding.stop(feed, reason)

    def inference(
        self,
        data: Any,
        output_schema: Any,
        *,
        feed: str = inference.DEFAULT_FEED,
        timeout: float = 600.0,
    ) -> Any:
        """A DataFrame of what the members answer to the rows of ``data``, one result for each row,
        in the order of each partition. Lazy: nothing happens before somebody wants the results.

        ``main_fun`` answers with ``ctx.inference_batches(...)``, or with
        ``ctx.get_data_feed(train_mode=False)``.

        Args:
            data: a DataFrame, with any partitioning.
            output_schema: "label bigint, score float", or a StructType: the columns of the results.
            feed: the name that ``ctx.inference_batches(..., feed=...)`` reads.
            timeout: seconds that a member may take from one result to the next.

        Raises:
            InvalidRun: arguments that make no sense; the run is not fed, or has nobody left to ask.
            NotEnoughSlots: the members hold all of Spark's slots.
            TrainingFailed, RunCancelled, CoordinatorUnavailable: the run is over.
        """
        return inference.inference(self._feeding, data, output_schema, feed=feed, timeout=timeout)
