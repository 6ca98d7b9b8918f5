"""Feeds under `ParameterServerStrategy`: the chief's graph reads on each worker that worker's own.

A worker of this strategy runs a `tf.distribute.Server` and no Python of the user's. The chief
traces a dataset and sends its graph to each worker. A `PyFunc` in it calls whatever the process
that runs it has registered under the op's token; so every worker registers its feeds under one
fixed token, and one graph reads many feeds. (`tf.numpy_function` makes up a token in the process
that traces; other processes do not know it.)

Owns: that token, what is said through it, and the end of a train whose workers end at different
times. TensorFlow is imported inside functions only.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from executor_agent.feed.columns import (
    ColumnSpec,
    Converter,
    Ragged,
    Specs,
    make_specs,
    no_rows,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.inbox import Feed

_TOKEN = "tflease_feeds"
_IDLE = 0.05  # seconds for which a worker without rows holds a step that finds none

Arrays = list[Any]


class Feeds(Protocol):
    """A worker's feeds by name."""

    def __getitem__(self, name: str, /) -> Feed: ...


# --- on a worker ----------------------------------------------------------------------------------


def register_feeds(feeds: Feeds, worker: int, stopping: Callable[[], bool]) -> None:
    """Let the chief's graph read the feeds of this process, before its server starts.

    Args:
        feeds: of this worker.
        worker: its index.
        stopping: whether the member is told to stop.

    Raises:
        RuntimeError: this TensorFlow keeps its Python functions elsewhere.
    """
    from tensorflow.python.ops import script_ops

    served = _Served(feeds, worker, stopping)
    try:
        script_ops._py_funcs._funcs[_TOKEN] = served
    except AttributeError:
        import tensorflow as tf

        raise RuntimeError(
            f"TensorFlow {tf.__version__} keeps Python functions where this version of tflease "
            "does not find them, so workers of ParameterServerStrategy cannot be fed"
        ) from None
    _kept.append(served)  # TensorFlow's registry does not keep what is in it


_kept: list[Callable[..., Arrays]] = []


class _Served:
    """What the graph calls: a command, the number of a reading, and what belongs to it."""

    def __init__(self, feeds: Feeds, worker: int, stopping: Callable[[], bool]) -> None:
        self._feeds = feeds
        self._worker = worker
        self._stopping = stopping
        self._lock = threading.Lock()
        self._readings: list[_Reading] = []
        self._never = threading.Event()

    def __call__(self, command: bytes, number: Any, request: bytes) -> Arrays:
        # As NumPy scalars, bytes or 0-dimensional arrays, by TensorFlow's choice.
        match bytes(np.asarray(command).item()):
            case b"begin":
                return [np.int64(self._begin(json.loads(np.asarray(request).item())))]
            case b"epoch":
                return [np.int64(self._readings[int(number)].next_epoch())]
            case b"piece":
                return self._readings[int(number)].next_piece()
            case b"ended":
                self._never.wait(_IDLE)  # a worker that has nothing to do is asked all the time
                return [np.int64(self._worker)]
            case other:
                raise ValueError(f"no command of a feed: {other!r}")

    def _begin(self, request: Mapping[str, Any]) -> int:
        name = request["feed"]
        with self._lock:
            for reading in self._readings:
                if reading.name == name:
                    reading.close()  # the chief has begun another iterator
            self._readings.append(
                _Reading(
                    name,
                    self._feeds[name],
                    request["batch_size"],
                    _specs_from(request["columns"]),
                    self._stopping,
                )
            )
            return len(self._readings) - 1


class _Reading:
    """The next train of one feed, for one iterator of the chief's on this worker."""

    def __init__(
        self,
        name: str,
        feed: Feed,
        batch_size: int,
        specs: Specs,
        stopping: Callable[[], bool],
    ) -> None:
        self.name = name
        self._convert = Converter(specs)
        self._nothing = [each for values in no_rows(specs).values() for each in _arrays(values)]
        self._chunks: Iterator[pa.RecordBatch] = iter(())
        feed.open(batch_size, False)
        self._epochs = self._all_epochs(feed, stopping)

    def next_epoch(self) -> int:
        """Its number; -1: there is none."""
        for reader in self._epochs:
            self._chunks = reader.chunks()
            return int(reader.number)
        return -1

    def next_piece(self) -> Arrays:
        """Whether there is one, and its arrays."""
        for chunk in self._chunks:
            columns = self._convert(chunk)
            return [np.True_, *(each for values in columns.values() for each in _arrays(values))]
        return [np.False_, *self._nothing]

    def close(self) -> None:
        self._chunks = iter(())
        self._epochs.close()

    @staticmethod
    def _all_epochs(feed: Feed, stopping: Callable[[], bool]) -> Any:
        train = feed.wait_for_train(stopping)
        if train is not None:
            yield from train.epoch_readers()


def _arrays(values: np.ndarray[Any, Any] | Ragged) -> Arrays:
    if isinstance(values, Ragged):
        return [values.flat_values, *values.nested_row_splits]
    return [values]


# --- on the chief ---------------------------------------------------------------------------------


def per_worker_dataset_fn(
    batch_size: int,
    spec: Mapping[str, Any],
    *,
    feed: str = "input",
    defaults: Mapping[str, Any] | None = None,
    drop_remainder: bool = False,
    prefetch: int = 2,
) -> Callable[..., Any]:
    """For `ClusterCoordinator.create_per_worker_dataset`: on each worker the next train of its
    feed, as `ctx.dataset` gives it to other strategies.

    Args:
        spec: as in `ctx.dataset`. It has to be given: the graph is made before there are rows, and
            by a process that gets none.

    Raises:
        FeedMismatch: `spec` or `defaults` cannot be meant. Rows that do not fit are an error of
            the step that reads them.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    specs = make_specs(spec, defaults)
    request = json.dumps({"feed": feed, "batch_size": batch_size, "columns": _to_json(specs)})

    def dataset_fn(*_: object) -> Any:
        import tensorflow as tf

        from executor_agent.feed.dataset import finished

        plain = tf.autograph.experimental.do_not_convert
        one, counter = tf.data.Dataset.from_tensors(0), tf.data.Dataset.counter()

        def pieces(reading: Any) -> Any:
            found = counter.map(plain(lambda _: _next_piece(reading, specs)))
            some = found.take_while(plain(lambda more, _: more)).map(plain(lambda _, piece: piece))
            return some.rebatch(batch_size, drop_remainder=drop_remainder)

        def epochs(reading: Any) -> Any:
            numbers = counter.map(plain(lambda _: _call("epoch", [tf.int64], reading)[0]))
            known = numbers.take_while(plain(lambda number: number >= 0))
            return known.flat_map(plain(lambda _: pieces(reading)))

        readings = one.map(plain(lambda _: _call("begin", [tf.int64], 0, request)[0]))
        return finished(readings.flat_map(plain(epochs)), prefetch)

    return dataset_fn


def run_steps(
    coordinator: Any, step: Callable[[Any], Any], per_worker_iterator: Any, workers: int
) -> int:
    """Run `step(batch)` on the workers for every batch that they are fed, to the end of the train.

    Workers come to their ends at different times. A step that finds no batch on its worker does
    nothing, instead of the error that would cancel the steps of all others.

    Args:
        coordinator: a `tf.distribute.coordinator.ClusterCoordinator`.
        step: called inside a `tf.function`.
        per_worker_iterator: `iter(coordinator.create_per_worker_dataset(...))`.
        workers: how many there are.

    Returns:
        How many batches there were.

    Raises:
        tf.errors.OpError: a step failed.
    """
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def step_or_worker(iterator: Any) -> Any:
        """-1, or the worker that has no more batches."""
        batch = iterator.get_next_as_optional()

        def do() -> Any:
            step(batch.get_value())
            return tf.constant(-1, tf.int64)

        return tf.cond(batch.has_value(), do, lambda: _call("ended", [tf.int64])[0])

    scheduled: deque[Any] = deque()
    ended: set[int] = set()
    steps = 0
    while len(ended) < workers or scheduled:
        while len(ended) < workers and len(scheduled) < 2 * workers:
            scheduled.append(coordinator.schedule(step_or_worker, args=(per_worker_iterator,)))
        worker = int(scheduled.popleft().fetch())
        if worker < 0:
            steps += 1
        else:
            ended.add(worker)
    coordinator.join()
    return steps


def _next_piece(reading: Any, specs: Specs) -> Any:
    """Whether there is one, and its columns."""
    import tensorflow as tf

    from executor_agent.feed.dataset import signature

    types: list[Any] = []
    for each in signature(specs).values():
        types += [each.dtype, *[tf.int64] * getattr(each, "ragged_rank", 0)]
    more, *arrays = _call("piece", [tf.bool, *types], reading)
    more.set_shape(())
    columns = {}
    for name, spec in specs.items():
        values, *splits = arrays[: 1 + spec.ragged_rank]
        del arrays[: 1 + spec.ragged_rank]
        values.set_shape((None, *spec.shape[spec.ragged_rank :]))
        for each in splits:
            each.set_shape((None,))
        columns[name] = (
            tf.RaggedTensor.from_nested_row_splits(values, splits, validate=False)
            if splits
            else values
        )
    return more, columns


def _call(command: str, types: list[Any], reading: Any = 0, request: str = "") -> Any:
    import tensorflow as tf

    inputs = [tf.constant(command), tf.cast(reading, tf.int64), tf.constant(request)]
    results = tf.raw_ops.PyFunc(input=inputs, token=_TOKEN, Tout=types)
    if len(types) == 1:
        results[0].set_shape(())
    return results


def _to_json(specs: Specs) -> list[Any]:
    return [
        [name, spec.dtype.name, spec.shape, _default_to_json(spec.default)]
        for name, spec in specs.items()
    ]


def _default_to_json(default: Any) -> Any:
    if isinstance(default, bytes):
        return {"bytes": base64.b64encode(default).decode()}
    return default if default is None else np.asarray(default, np.dtype(object)).tolist()


def _specs_from(columns: list[Any]) -> Specs:
    specs = {}
    for name, dtype, shape, plain in columns:
        default = base64.b64decode(plain["bytes"]) if isinstance(plain, dict) else plain
        specs[name] = ColumnSpec(_numpy_type(dtype), tuple(shape), default)
    return specs


def _numpy_type(name: str) -> np.dtype[Any]:
    """NumPy knows bfloat16 by name only where it was registered, as TensorFlow does."""
    import tensorflow as tf

    dtype: np.dtype[Any] = np.dtype(
        object if name == "object" else tf.as_dtype(name).as_numpy_dtype
    )
    return dtype
