"""What of an epoch counts as delivered when the gang is gone: what its members are known to have
read, and nothing else."""

from __future__ import annotations

import pytest

from coordinator.core.model import MemberId, Role
from coordinator.spark.feed.accounts import Closed, FeederRow
from coordinator.spark.feed.counters import Counters
from coordinator.spark.feed.delivery import Delivery, Reading, readings

A, B = "worker:0", "worker:1"
HALVES = [
    FeederRow(0, 10, workers={A: 10}, marks={A: 10}),
    FeederRow(1, 10, workers={A: 5, B: 5}, marks={A: 15, B: 5}),
    FeederRow(2, 10, workers={B: 10}, marks={B: 15}),
]


def closed(*, steps: int | None = None, **rows: int) -> Closed:
    return Closed(steps, {name.replace("_", ":"): count for name, count in rows.items()}, 0)


@pytest.fixture
def delivery() -> Delivery:
    """Three partitions have gone to two members; the epoch is not closed."""
    made = Delivery()
    assert made.begin(1, "as it is") == frozenset()
    made.note(1, HALVES)
    return made


def left_out(made: Delivery, epoch: int = 1, cut: object = "as it is") -> set[int]:
    return set(made.begin(epoch, cut))


@pytest.mark.parametrize(
    ("a", "b", "delivered"),
    [
        ((0, 0), (0, 0), set()),
        ((1, 9), (1, 15), {2}),
        ((1, 10), (1, 4), {0}),
        ((1, 15), (1, 5), {0, 1}),
        ((1, 15), (1, 15), {0, 1, 2}),
        ((2, 15), (2, 15), set()),  # of this epoch nothing is known, and it is not closed
    ],
)
def test_a_partition_is_delivered_when_all_have_read_its_last_row(
    delivery: Delivery, a: tuple[int, int], b: tuple[int, int], delivered: set[int]
) -> None:
    found = {A: Reading(0, *a), B: Reading(0, *b)}
    assert delivery.restart(found, repeat=False) == 1
    assert left_out(delivery) == delivered
    assert {row.partition for row in delivery.before(1)} == delivered


def test_members_that_say_nothing_have_read_nothing(delivery: Delivery) -> None:
    delivery.restart({A: Reading(0, 1, 15), B: Reading()}, repeat=False)
    assert left_out(delivery) == {0}


def test_to_repeat_is_to_send_all_of_it(delivery: Delivery) -> None:
    assert delivery.restart({A: Reading(0, 1, 15), B: Reading(0, 1, 15)}, repeat=True) == 1
    assert left_out(delivery) == set()
    assert delivery.was_begun_before(1)


@pytest.mark.parametrize("cut", [None, "otherwise"])
def test_rows_that_may_come_in_other_partitions_are_all_sent_again(
    delivery: Delivery, cut: object
) -> None:
    """An executor less, and Spark cuts files in another way: a number names other rows then."""
    delivery.restart({A: Reading(0, 1, 15), B: Reading(0, 1, 15)}, repeat=False)
    assert left_out(delivery, cut=cut) == set()
    assert delivery.before(1) == ()


def test_rows_that_moved_at_the_end_are_not_read_by_who_had_them(delivery: Delivery) -> None:
    """Worker 1 gave three of its rows to worker 0, which has not come to them."""
    delivery.close(1, closed(steps=18, worker_0=18, worker_1=12))
    delivery.restart({A: Reading(0, 1, 15), B: Reading(1, 2, 0)}, repeat=False)
    assert left_out(delivery) == {0, 1}


def test_what_all_have_read_does_not_come_back(delivery: Delivery) -> None:
    delivery.close(1, closed(worker_0=15, worker_1=15))
    found = {A: Reading(1, 0, 0), B: Reading(1, 2, 3)}
    assert delivery.is_read(1, found)
    delivery.begin(2, "as it is")
    assert delivery.restart(found, repeat=False) == 2
    assert not delivery.was_begun_before(1)


def test_an_epoch_that_is_not_closed_is_not_read_whatever_they_say(delivery: Delivery) -> None:
    found = {A: Reading(1, 0, 0), B: Reading(1, 0, 0)}
    assert not delivery.is_read(1, found)
    assert delivery.restart(found, repeat=False) == 1
    assert left_out(delivery) == set()


def test_an_epoch_that_is_closed_and_not_read_comes_back_before_the_one_under_way(
    delivery: Delivery,
) -> None:
    """The members' queues may hold several."""
    delivery.close(1, closed(worker_0=15, worker_1=15))
    delivery.begin(2, "as it is")
    delivery.note(2, HALVES)
    found = {A: Reading(1, 2, 10), B: Reading(0, 1, 5)}
    assert not delivery.is_read(1, found)
    assert delivery.restart(found, repeat=False) == 1
    assert left_out(delivery, 1) == {0, 1}
    assert left_out(delivery, 2) == {0}


def test_the_next_generation_is_judged_by_its_own_rows(delivery: Delivery) -> None:
    delivery.restart({A: Reading(0, 1, 15), B: Reading(0, 1, 5)}, repeat=False)
    assert left_out(delivery) == {0, 1}
    delivery.note(1, [FeederRow(2, 10, workers={A: 10}, marks={A: 10})])
    delivery.restart({A: Reading(0, 1, 9), B: Reading(0, 1, 0)}, repeat=False)
    assert left_out(delivery) == {0, 1}
    delivery.note(1, [FeederRow(2, 10, workers={A: 10}, marks={A: 10})])
    delivery.restart({A: Reading(0, 1, 10), B: Reading(0, 1, 0)}, repeat=False)
    assert left_out(delivery) == {0, 1, 2}


def test_nothing_of_a_feeder_that_was_stopped_counts(delivery: Delivery) -> None:
    delivery.note(1, [FeederRow(3, 0, stopped="it is told to stop")])
    delivery.restart({A: Reading(0, 1, 15), B: Reading(0, 1, 15)}, repeat=False)
    assert 3 not in left_out(delivery)


def test_all_is_read_when_the_last_row_is_unless_some_are_left_out(delivery: Delivery) -> None:
    """With equal steps nobody reads the rows that are left out: then it is read when it is left."""
    found = {A: Reading(0, 1, 15), B: Reading(0, 1, 15)}
    assert not delivery.is_read(1, found)
    delivery.close(1, closed(worker_0=15, worker_1=15))
    assert delivery.is_read(1, found)
    assert not delivery.is_read(1, {A: Reading(0, 1, 15), B: Reading(0, 1, 14)})
    delivery.close(1, closed(steps=7, worker_0=15, worker_1=15))
    assert not delivery.is_read(1, found)


def test_counters_of_another_train_say_nothing_of_this_one() -> None:
    counts = {"train": 2.0, "finished": 1.0, "epoch_read": 2.0, "used": 7.0}
    ids = [MemberId(Role.WORKER, index) for index in (0, 1)]
    found = readings(Counters(2, ((ids[0], counts), (ids[1], {**counts, "train": 1.0}))))
    assert found == {A: Reading(1, 2, 7)}
