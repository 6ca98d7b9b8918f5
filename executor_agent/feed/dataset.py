"""A feed as a `tf.data.Dataset`: whole Arrow pieces in, batches cut in C++.

Owns: how pieces become elements, and where epochs end in the dataset. TensorFlow is imported inside
functions only. One element of the generator is a piece of thousands of rows, because each costs
about a millisecond of Python; `rebatch` then costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from executor_agent.feed.columns import (
    BYTES,
    Converter,
    Ragged,
    Specs,
    make_specs,
    no_rows,
    specs_for,
)
from executor_agent.feed.train import FeedInUse

if TYPE_CHECKING:
    from executor_agent.feed.inbox import EpochReader, Feed, Train
    from executor_agent.feed.ragged import Values

_IDLE = 0.2  # seconds without rows after which TensorFlow looks whether it is to go on
_GOING = 5.0  # seconds that an iterator nobody has any more may take to be gone


def make_dataset(
    feed: Feed,
    *,
    batch_size: int,
    spec: Mapping[str, Any] | None,
    equal_steps: bool,
    defaults: Mapping[str, Any] | None,
    drop_remainder: bool,
    prefetch: int,
    stopping: Callable[[], bool],
) -> Any:
    """The next train of the feed, all of its epochs. See `FeedMethods.dataset`."""
    import tensorflow as tf

    reading = _Reading(feed, batch_size, spec, equal_steps, defaults, drop_remainder, stopping)
    specs = reading.specs()
    if specs is None:
        return _empty()
    epochs = _Epochs(reading)

    def of_one_epoch(number: Any) -> Any:
        return reading.batches(specs, lambda: epochs.current)

    numbers = tf.data.Dataset.from_generator(epochs, output_signature=tf.TensorSpec((), tf.int64))
    # One epoch's dataset ends before the next one begins, so that no batch has rows of both.
    # AutoGraph would warn that it cannot read our generators.
    plain = tf.autograph.experimental.do_not_convert(of_one_epoch)
    return finished(numbers.flat_map(plain), prefetch)


def epochs(
    feed: Feed,
    *,
    batch_size: int,
    spec: Mapping[str, Any] | None,
    equal_steps: bool,
    defaults: Mapping[str, Any] | None,
    drop_remainder: bool,
    prefetch: int,
    stopping: Callable[[], bool],
) -> Iterator[Any]:
    """The next train of the feed, a dataset for each epoch. See `FeedMethods.epochs`."""
    reading = _Reading(feed, batch_size, spec, equal_steps, defaults, drop_remainder, stopping)

    def datasets() -> Iterator[Any]:
        train, specs = reading.train(), reading.specs()
        if train is None or specs is None:
            return
        for reader in train.epoch_readers():
            yield finished(reading.batches(specs, _Once(reader)), prefetch)

    return datasets()


class _Reading:
    """One consumer of a feed, from its opening to its end."""

    def __init__(
        self,
        feed: Feed,
        batch_size: int,
        spec: Mapping[str, Any] | None,
        equal_steps: bool,
        defaults: Mapping[str, Any] | None,
        drop_remainder: bool,
        stopping: Callable[[], bool],
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        self._specs = None if spec is None else make_specs(spec, defaults)
        self._feed = feed
        self._batch_size = batch_size
        self._defaults = defaults
        # With equal steps all batches are full; that the shape says so helps compilers.
        self._drop_remainder = drop_remainder or equal_steps
        self._stopping = stopping
        self._train: Train | None = None
        _open(feed, batch_size, equal_steps)

    def train(self) -> Train | None:
        """Waits for it; None: told to stop."""
        if self._train is None:
            self._train = self._feed.wait_for_train(self._stopping)
        return self._train

    def specs(self) -> Specs | None:
        """Waits for the first rows' types unless we were told them; None: there are no rows."""
        if self._specs is None:
            train = self.train()
            schema = train.wait_for_schema() if train is not None else None
            if schema is not None:
                self._specs = specs_for(schema, None, self._defaults)
        return self._specs

    def batches(self, specs: Specs, reader: Callable[[], EpochReader | None]) -> Any:
        """The batches of what `reader()` gives when the dataset's iterator begins."""
        import tensorflow as tf

        def pieces() -> Iterator[dict[str, Any]]:
            convert, nothing = Converter(specs), to_tensors(no_rows(specs))
            current = reader()
            for chunk in current.pieces(_IDLE) if current is not None else ():
                # Without rows it is only the moment at which TensorFlow sees that its iterator is
                # not wanted any more: else a loop that is left would wait for the next rows.
                yield nothing if chunk is None else to_tensors(convert(chunk))

        whole = tf.data.Dataset.from_generator(pieces, output_signature=signature(specs))
        return whole.rebatch(self._batch_size, drop_remainder=self._drop_remainder)


def _open(feed: Feed, batch_size: int, equal_steps: bool) -> None:
    """TensorFlow ends a generator some time after the loop that used it was left."""
    deadline = time.monotonic() + _GOING
    while True:
        try:
            feed.open(batch_size, equal_steps)
            return
        except FeedInUse:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


class _Epochs:
    """The numbers of the epochs, for one iterator; `current` is the reader of the last one."""

    def __init__(self, reading: _Reading) -> None:
        self.current: EpochReader | None = None
        self._reading = reading
        self._begun = False

    def __call__(self) -> Iterator[int]:
        if self._begun:
            raise RuntimeError(
                "this dataset of a feed has been gone through before, and its rows are gone: "
                "ctx.dataset() holds all epochs of one cluster.train call (ctx.epochs() gives a "
                "dataset for each); take another one for the next call"
            )
        self._begun = True
        train = self._reading.train()
        for reader in train.readers(_IDLE) if train is not None else ():
            self.current = reader
            yield -1 if reader is None else reader.number


class _Once:
    """The reader of one epoch, for one iterator."""

    def __init__(self, reader: EpochReader) -> None:
        self._reader: EpochReader | None = reader

    def __call__(self) -> EpochReader:
        reader, self._reader = self._reader, None
        if reader is None:
            raise RuntimeError(
                "this epoch of a feed has been gone through before, and its rows are gone: say how "
                "many epochs there are with cluster.train(..., num_epochs=...)"
            )
        return reader


def signature(specs: Specs) -> dict[str, Any]:
    """What TensorFlow calls these columns, with a batch dimension of any size in front."""
    import tensorflow as tf

    made = {}
    for name, spec in specs.items():
        dtype = tf.string if spec.dtype == BYTES else tf.as_dtype(spec.dtype)
        shape = (None, *spec.shape)
        if spec.ragged_rank:
            made[name] = tf.RaggedTensorSpec(shape, dtype, ragged_rank=spec.ragged_rank)
        else:
            made[name] = tf.TensorSpec(shape, dtype)
    return made


def to_tensors(columns: Mapping[str, Values]) -> dict[str, Any]:
    """Arrays as they are, and ragged columns as `tf.RaggedTensor`."""
    return {
        name: _ragged_tensor(values) if isinstance(values, Ragged) else np.ascontiguousarray(values)
        for name, values in columns.items()
    }


def _ragged_tensor(values: Ragged) -> Any:
    import tensorflow as tf

    with tf.device("/CPU:0"):  # batches are cut there; without this, small pieces go to the GPU
        return tf.RaggedTensor.from_nested_row_splits(
            values.flat_values, values.nested_row_splits, validate=False
        )


def finished(dataset: Any, prefetch: int) -> Any:
    """With what all fed datasets have in common."""
    import tensorflow as tf

    options = tf.data.Options()
    # The end of an epoch would wait for the tuner's next wake-up, which comes ever later.
    options.autotune.enabled = False
    # Rows are spread over the workers already.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return (dataset.prefetch(prefetch) if prefetch else dataset).with_options(options)


def _empty() -> Any:
    """No rows came, so nothing is known of them. (Elements without columns cannot be.)"""
    import tensorflow as tf

    return tf.data.Dataset.range(0)
