"""What `ctx` offers to a `main_fun` that Spark feeds.

Owns: names, defaults and the documentation. What is behind them is imported when it is first asked
for: a member that is not fed needs neither pyarrow nor any of it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executor_agent.feed.data_feed import DataFeed
    from executor_agent.feed.inbox import Feed
    from executor_agent.feed.inference import InferenceBatch
    from executor_agent.feed.server import FeedServer

INPUT = "input"
"""The feed that `cluster.train` fills unless it is told another one."""

INFERENCE = "inference"
"""The feed that `cluster.inference` uses unless it is told another one."""


class FeedMethods:
    """A part of `Context`."""

    cluster_spec: dict[str, list[str]]
    num_workers: int

    def __init__(self, feeds: "FeedServer | None", stopping: Callable[[], bool]) -> None:
        self._feeds = feeds
        self._stopping = stopping

    def dataset(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None = None,
        *,
        feed: str = INPUT,
        equal_steps: bool | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_remainder: bool = False,
        prefetch: int = 2,
    ) -> Any:
        """The rows of one `cluster.train` call as a `tf.data.Dataset`, over all of its epochs.

        Each element is a dict of batches by column name. The dataset can be gone through once; it
        begins when `cluster.train` does, and ends with its last epoch, with `terminate`, or when
        the member is told to stop (with equal steps: after those that are released already). The
        next `cluster.train` needs another dataset.

        Args:
            batch_size: rows in a batch of this worker. No batch has rows of two epochs.
            spec: what one row looks like, by column: `tf.TensorSpec((784,), tf.float32)`,
                `tf.RaggedTensorSpec((None,), tf.int64)`; columns that are not named are left out.
                None: what the columns' own types say (docs/feeding.md), known once the first rows
                have come, for which this call then waits.
            feed: as in `cluster.train(..., feed=...)`.
            equal_steps: whether all workers take the same number of steps in each epoch, as a
                synchronous strategy needs it. Then all batches are full, and less than one batch
                of each worker is left out of an epoch and reported. Default: whether several
                workers train without parameter servers.
            defaults: what to put in place of nulls, by column. A null in any other column is an
                error.
            drop_remainder: leave out the rows of an epoch that do not fill a batch.
            prefetch: batches that are made ahead.

        Raises:
            RuntimeError: the run is not fed (`InputMode.SPARK`), or another reader has this feed.
            FeedMismatch: the rows do not look like `spec`; it names the columns.
        """
        from executor_agent.feed.dataset import make_dataset

        return make_dataset(
            self._feed(feed),
            batch_size=batch_size,
            spec=spec,
            equal_steps=self._equal(equal_steps),
            defaults=defaults,
            drop_remainder=drop_remainder,
            prefetch=prefetch,
            stopping=self._stopping,
        )

    def epochs(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None = None,
        *,
        feed: str = INPUT,
        equal_steps: bool | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_remainder: bool = False,
        prefetch: int = 2,
    ) -> Iterator[Any]:
        """As `dataset`, with one `tf.data.Dataset` for each epoch, to be gone through in turn."""
        from executor_agent.feed import dataset

        return dataset.epochs(
            self._feed(feed),
            batch_size=batch_size,
            spec=spec,
            equal_steps=self._equal(equal_steps),
            defaults=defaults,
            drop_remainder=drop_remainder,
            prefetch=prefetch,
            stopping=self._stopping,
        )

    def first_epoch(self, feed: str = INPUT) -> int:
        """The number of the epoch with which the next dataset of this feed begins, from 1; waits
        for its `cluster.train`. It is more than 1 where the gang was restarted in the middle:
        `for number, dataset in enumerate(ctx.epochs(64), ctx.first_epoch())`."""
        return self._feed(feed).first_epoch(self._stopping)

    def feed_batches(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None = None,
        *,
        feed: str = INPUT,
        equal_steps: bool | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_remainder: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """As `dataset`, with NumPy arrays by column name, and without TensorFlow."""
        from executor_agent.feed.data_feed import numpy_batches

        return numpy_batches(
            self._feed(feed),
            batch_size,
            equal_steps=self._equal(equal_steps),
            spec=spec,
            defaults=defaults,
            drop_remainder=drop_remainder,
            stopping=self._stopping,
        )

    def get_data_feed(
        self,
        train_mode: bool = True,
        qname_in: str = INPUT,
        qname_out: str = "output",
        input_mapping: Mapping[str, str] | None = None,
        *,
        equal_steps: bool = False,
    ) -> "DataFeed":
        """TensorFlowOnSpark's `DataFeed`: `next_batch(n)`, `should_stop()`, `batch_results(...)`,
        `terminate()`. Rows come as Python objects, one by one, which is slow by its nature; what is
        new should use `dataset`.

        Args:
            train_mode: False for `cluster.inference`.
            qname_in: the feed; "input" stands for that of `cluster.inference` unless `train_mode`.
            qname_out: unused; taken for the sake of programs that name it.
            input_mapping: column to tensor name: `next_batch` then returns a dict of lists.
            equal_steps: as in `dataset`, for a synchronous strategy; then every `next_batch(n)` of
                a worker asks for the same n. Unlike there it is off unless it is asked for, because
                TensorFlowOnSpark's programs may ask for any n.
        """
        from executor_agent.feed.data_feed import DataFeed

        name = INFERENCE if qname_in == INPUT and not train_mode else qname_in
        return DataFeed(
            self._feed(name) if train_mode else self._feed_server().inference[name],
            train_mode=train_mode,
            qname_out=qname_out,
            input_mapping=input_mapping,
            equal_steps=equal_steps,
            stopping=self._stopping,
        )

    def inference_batches(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None = None,
        *,
        feed: str = INFERENCE,
        defaults: Mapping[str, Any] | None = None,
    ) -> "Iterator[InferenceBatch]":
        """The rows of `cluster.inference` calls, until the member is told to stop. Each batch has
        NumPy arrays by column (`batch["x"]`), at most `batch_size` rows, and must be answered in
        turn by `batch.send(results)`: an array, or a dict of arrays, with as many rows."""
        from executor_agent.feed.inference import inference_batches

        return inference_batches(
            self._feed_server(),
            batch_size,
            spec=spec,
            feed=feed,
            defaults=defaults,
            stopping=self._stopping,
        )

    def per_worker_dataset_fn(
        self,
        batch_size: int,
        spec: Mapping[str, Any],
        *,
        feed: str = INPUT,
        defaults: Mapping[str, Any] | None = None,
        drop_remainder: bool = False,
        prefetch: int = 2,
    ) -> Callable[..., Any]:
        """For the chief of a `ParameterServerStrategy`: what
        `ClusterCoordinator.create_per_worker_dataset` takes, so that each worker reads the rows
        that it is fed. The workers run `ctx.serve_forever()`. Arguments as in `dataset`.

        Raises:
            FeedMismatch: `spec` or `defaults` cannot be meant. Rows that do not fit are an error
                of the step that reads them.
        """
        from executor_agent.feed.parameter_server import per_worker_dataset_fn

        self._feed_server()
        return per_worker_dataset_fn(
            batch_size,
            spec,
            feed=feed,
            defaults=defaults,
            drop_remainder=drop_remainder,
            prefetch=prefetch,
        )

    def run_fed_steps(
        self, coordinator: Any, step: Callable[[Any], Any], per_worker_iterator: Any
    ) -> int:
        """For the chief: `step(batch)` on the workers for every batch that they are fed, to the end
        of the `cluster.train` call. (`ClusterCoordinator.schedule` alone takes the first worker
        without rows for an error.)

        Args:
            coordinator: the `tf.distribute.coordinator.ClusterCoordinator`.
            step: called inside a `tf.function`.
            per_worker_iterator: `iter(coordinator.create_per_worker_dataset(...))`.

        Returns:
            How many batches there were.

        Raises:
            tf.errors.OpError: a step failed.
        """
        from executor_agent.feed.parameter_server import run_steps

        workers = len(self.cluster_spec["worker"])
        return run_steps(coordinator, step, per_worker_iterator, workers)

    def _serve_feeds(self, worker: int) -> None:
        """Before a worker's `tf.distribute.Server` starts: what the chief's graph will ask for."""
        if self._feeds is not None:
            from executor_agent.feed.parameter_server import register_feeds

            register_feeds(self._feeds.feeds, worker, self._stopping)

    def _feed_server(self) -> "FeedServer":
        if self._feeds is None:
            raise RuntimeError(
                "Spark does not feed this run: pass input_mode=InputMode.SPARK to TFCluster.run"
            )
        return self._feeds

    def _feed(self, name: str) -> "Feed":
        return self._feed_server().feeds[name]

    def _equal(self, asked: bool | None) -> bool:
        if asked is not None:
            return asked
        return self.num_workers > 1 and not self.cluster_spec.get("ps")
