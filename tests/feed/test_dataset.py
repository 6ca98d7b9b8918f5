"""A feed as a tf.data.Dataset: what the batches hold, where epochs end, and who ends whom."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from executor_agent.feed import dataset
from executor_agent.feed.inbox import Feed
from tests.feed.fake_feed import FakeFeed, never, numbers

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def given(options: dict[str, Any]) -> dict[str, Any]:
    nothing = {
        "spec": None, "equal_steps": False, "defaults": None, "drop_remainder": False,
        "prefetch": 2, "stopping": never,
    }  # fmt: skip
    return nothing | options


def make(feed: FakeFeed, batch_size: int, **options: Any) -> Any:
    return dataset.make_dataset(feed, batch_size=batch_size, **given(options))  # type: ignore[arg-type]


def make_epochs(feed: FakeFeed, batch_size: int, **options: Any) -> Any:
    return dataset.epochs(feed, batch_size=batch_size, **given(options))  # type: ignore[arg-type]


def lists(batches: Any, name: str = "n") -> list[Any]:
    return [batch[name].numpy().tolist() for batch in batches]


def test_batches_cross_pieces_and_never_epochs(tf: Any) -> None:
    feed = FakeFeed([numbers(1, 2, 3), numbers(), numbers(4, 5)], [], [numbers(6)])
    made = make(feed, 2)
    assert made.element_spec == {"n": tf.TensorSpec((None,), tf.int64)}
    assert made.cardinality() == tf.data.UNKNOWN_CARDINALITY
    assert lists(made) == [[1, 2], [3, 4], [5], [6]]
    assert feed.opened == [(2, False)]
    assert not feed.is_read


def test_equal_steps_give_all_released_batches_with_their_size_in_the_shape(tf: Any) -> None:
    feed = FakeFeed([numbers(1, 2, 3), numbers(4)], [numbers(5, 6)])
    made = make(feed, 2, equal_steps=True)
    assert made.element_spec == {"n": tf.TensorSpec((2,), tf.int64)}
    assert lists(made) == [[1, 2], [3, 4], [5, 6]]
    assert feed.opened == [(2, True)]


def test_remainders_are_dropped_when_asked(tf: Any) -> None:
    feed = FakeFeed([numbers(1, 2, 3)], [numbers(4, 5)])
    assert lists(make(feed, 2, drop_remainder=True, prefetch=0)) == [[1, 2], [4, 5]]


def test_a_spec_is_enough_to_begin_before_there_are_rows(tf: Any) -> None:
    feed = FakeFeed([numbers(1, 2)])
    spec = {"n": tf.TensorSpec((), tf.float32)}
    made = make(feed, 2, spec=spec)
    assert feed.opened == [(2, False)]
    assert feed.waited == 0
    assert made.element_spec == {"n": tf.TensorSpec((None,), tf.float32)}
    assert lists(made) == [[1.0, 2.0]]
    assert feed.waited == 1


def test_tensors_of_all_kinds(tf: Any) -> None:
    batch = pa.record_batch(
        {
            "image": pa.array([bytes([1, 2, 3, 4])] * 3),
            "text": pa.array(["a", None, "c"]),
            "flag": pa.array([True, False, True]),
            "half": pa.array([0.5, 1.0, 2.0]),
            "tags": pa.array([[1], [], [2, 3]], pa.list_(pa.int32())),
            "deep": pa.array([[["x"], []], [], [["y", "z"]]]),
            "pairs": pa.array([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]),
            "inner": pa.array([{"a": 1}, {"a": 2}, {"a": 3}]),
        }
    )
    spec = {
        "image": tf.TensorSpec((2, 2), tf.uint8),
        "text": tf.TensorSpec((), tf.string),
        "flag": tf.TensorSpec((), tf.bool),
        "half": tf.TensorSpec((), tf.bfloat16),
        "tags": tf.RaggedTensorSpec((None,), tf.int32),
        "deep": tf.RaggedTensorSpec((None, None), tf.string),
        "pairs": tf.RaggedTensorSpec((None, 2), tf.float32, ragged_rank=1),
        "inner": {"a": tf.TensorSpec((), tf.int64)},
    }
    made = make(FakeFeed([batch, batch]), 4, spec=spec, defaults={"text": ""})
    assert made.element_spec["deep"] == tf.RaggedTensorSpec((None, None, None), tf.string)
    first, second = made
    assert first["image"].shape == (4, 2, 2)
    assert first["image"][3].numpy().tolist() == [[1, 2], [3, 4]]
    assert first["text"].numpy().tolist() == [b"a", b"", b"c", b"a"]
    assert first["flag"].numpy().tolist() == [True, False, True, True]
    assert tf.cast(first["half"], tf.float32).numpy().tolist() == [0.5, 1.0, 2.0, 0.5]
    assert first["tags"].to_list() == [[1], [], [2, 3], [1]]
    assert first["deep"].to_list() == [[[b"x"], []], [], [[b"y", b"z"]], [[b"x"], []]]
    assert first["pairs"].to_list() == [[[1, 2]], [], [[3, 4], [5, 6]], [[1, 2]]]
    assert first["inner.a"].numpy().tolist() == [1, 2, 3, 1]
    assert second["tags"].to_list() == [[], [2, 3]]
    assert first["tags"].to_tensor(-1).numpy().tolist() == [[1, -1], [-1, -1], [2, 3], [1, -1]]


def test_lists_without_a_spec_are_ragged(tf: Any) -> None:
    batch = pa.record_batch({"r": pa.array([[1], [], [2, 3]])})
    made = make(FakeFeed([batch]), 2)
    assert made.element_spec == {"r": tf.RaggedTensorSpec((None, None), tf.int64)}
    assert [each["r"].to_list() for each in made] == [[[1], []], [[2, 3]]]


def test_no_rows_are_no_batches(tf: Any) -> None:
    assert list(make(FakeFeed([numbers()]), 2)) == []
    assert list(make(FakeFeed([]), 2)) == []  # nothing is known of its columns
    assert list(make(FakeFeed([numbers(1)], stopped=True), 2)) == []
    assert list(make_epochs(FakeFeed([numbers(1)], stopped=True), 2)) == []


def test_there_is_a_dataset_for_each_epoch(tf: Any) -> None:
    feed = FakeFeed([numbers(1, 2, 3)], [], [numbers(4)])
    datasets = make_epochs(feed, 2)
    assert feed.opened == [(2, False)]  # at once, not when the first one is asked for
    assert [lists(each) for each in datasets] == [[[1, 2], [3]], [], [[4]]]
    assert not feed.is_read


def test_a_mismatch_says_which_column_in_what_tensorflow_raises(tf: Any) -> None:
    feed = FakeFeed([numbers(1)])
    made = make(feed, 1, spec={"m": tf.TensorSpec((), tf.int64)})
    with pytest.raises(tf.errors.OpError, match="column 'm': no such column; there are: 'n'"):
        list(made)
    assert feed.reader_gone.wait(30)
    with pytest.raises(ValueError, match=r"column 'n': a tf\.TensorSpec of shape"):
        make(feed, 1, spec={"n": tf.TensorSpec((None,), tf.int64)})
    with pytest.raises(ValueError, match="batch_size is 0"):
        make(feed, 0)


@pytest.mark.parametrize(
    "take", [lambda feed: make(feed, 1), lambda feed: next(make_epochs(feed, 1))]
)
def test_rows_cannot_be_gone_through_twice(tf: Any, take: Callable[[FakeFeed], Any]) -> None:
    made = take(FakeFeed([numbers(1)]))
    assert lists(made) == [[1]]
    with pytest.raises(tf.errors.OpError, match="has been gone through before"):
        list(made)


def test_a_consumer_that_leaves_gives_the_feed_back(tf: Any) -> None:
    """F6: a loop that stops after so many steps."""
    feed = FakeFeed([numbers(1, 2)] * 100, [numbers(3)])
    for batch in make(feed, 2):
        assert batch["n"].numpy().tolist() == [1, 2]
        break
    assert feed.reader_gone.wait(30)


def test_an_epoch_ends_without_waiting_for_the_next_rows(tf: Any) -> None:
    """A batch that is full comes out although its epoch goes on."""
    go_on = threading.Event()
    found = []
    for batch in make(FakeFeed([numbers(1, 2), go_on, numbers(3, 4)], [numbers(5)]), 2):
        found.append(batch["n"].numpy().tolist())
        go_on.set()  # only now: the first batch did not need it
    assert found == [[1, 2], [3, 4], [5]]


def test_the_tuner_is_off_and_nothing_is_sharded(tf: Any) -> None:
    """The end of an epoch would wait for the tuner; the rows are spread already."""
    options = make(FakeFeed([numbers(1)]), 1).options()
    assert options.autotune.enabled is False
    off = tf.data.experimental.AutoShardPolicy.OFF
    assert options.experimental_distribute.auto_shard_policy == off


def test_a_real_feed_gives_each_train_to_a_dataset_of_its_own(tf: Any) -> None:
    feed = Feed("input")
    for train in (1, 2):
        made = make(feed, 2, spec={"n": tf.TensorSpec((), tf.int64)}, equal_steps=True)  # type: ignore[arg-type]
        feed.open_train(train, 2)
        for epoch in range(2):
            feed.receive(train, epoch, [numbers(1, 2, 3), numbers(4, 5)])
            feed.close_epoch(train, epoch, 2)
        feed.end_train(train, "")
        assert lists(made) == [[1, 2], [3, 4]] * 2


def test_a_real_feed_can_be_read_again_at_once_by_who_left_it(tf: Any) -> None:
    feed = Feed("input")
    feed.open_train(1, None)
    feed.receive(1, 0, [numbers(1, 2)] * 100)
    for _ in range(2):
        for batch in make(feed, 2):  # type: ignore[arg-type]
            assert batch["n"].numpy().tolist() == [1, 2]
            break


def test_a_loop_can_be_left_while_no_rows_come(tf: Any) -> None:
    """TensorFlow waits for what the generator is doing before it lets an iterator go."""
    feed = Feed("input")
    feed.open_train(1, 2)
    feed.receive(1, 0, [numbers(1, 2)])
    for batch in make(feed, 2):  # type: ignore[arg-type]
        assert batch["n"].numpy().tolist() == [1, 2]
        break  # the epoch goes on, without rows
    feed.receive(1, 0, [numbers(3, 4)])
    feed.close_epoch(1, 0, None)
    for batch in make(feed, 2):  # type: ignore[arg-type]
        assert batch["n"].numpy().tolist() == [3, 4]
        break  # the next epoch does not begin


def replica_rows(strategy: Any, distributed: Any) -> list[Any]:
    return [
        [each.numpy().tolist() for each in strategy.experimental_local_results(batch["n"])]
        for batch in distributed
    ]


def test_a_strategy_takes_a_batch_for_each_replica(tf: Any) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    feed = FakeFeed([numbers(1, 2, 3, 4)], [numbers(5, 6, 7, 8)])
    distributed = strategy.distribute_datasets_from_function(
        lambda context: make(feed, 2, equal_steps=True)
    )
    assert replica_rows(strategy, distributed) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_a_strategy_divides_a_batch_among_its_replicas(tf: Any) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    feed = FakeFeed([numbers(1, 2, 3, 4)], [numbers(5, 6, 7, 8)])
    distributed = strategy.experimental_distribute_dataset(make(feed, 4, equal_steps=True))
    assert replica_rows(strategy, distributed) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_ragged_rows_go_through_a_strategy(tf: Any) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    batch = pa.record_batch({"r": pa.array([[1], [], [2, 3], [4]])})
    made = make(FakeFeed([batch]), 4, equal_steps=True)
    [divided] = strategy.experimental_distribute_dataset(made)
    found = [each.to_list() for each in strategy.experimental_local_results(divided["r"])]
    assert found == [[[1], []], [[2, 3], [4]]]
