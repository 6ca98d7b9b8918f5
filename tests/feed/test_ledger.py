"""A worker's book of what it has taken (F2). That it is a set of rows: tests/property/test_feed."""

from __future__ import annotations

import pytest

from executor_agent.core.feed_ledger import Begun, Closed, Ledger, Stale, merged


def begun(ledger: Ledger, *rows: tuple[int, int], attempt: int = 1) -> Ledger:
    ledger.begin(1, 0, attempt)
    for start, count in rows:
        assert ledger.took(1, 0, attempt, start, count)
    return ledger


def test_a_retried_attempt_is_told_what_was_taken_in_as_few_ranges_as_possible() -> None:
    ledger = begun(Ledger(), (0, 10), (20, 10), (50, 5), (10, 10))
    answer = ledger.begin(1, 0, 2)
    assert answer == Begun(taken=((0, 30), (50, 55)), fences=(1,))
    assert answer.rows == ledger.rows(1) == 35


def test_nothing_of_a_fenced_attempt_enters() -> None:
    ledger = begun(Ledger(), (0, 10))
    assert not ledger.is_fenced(1, 0, 1)
    ledger.begin(1, 0, 2)
    assert ledger.is_fenced(1, 0, 1)
    assert not ledger.took(1, 0, 1, 10, 10)
    assert ledger.begin(1, 0, 2) == Begun(((0, 10),), ()), "what it took after that is not here"
    assert ledger.rows(1) == 10


def test_an_older_attempt_that_comes_late_is_refused_and_changes_nothing() -> None:
    ledger = begun(Ledger(), (0, 10), attempt=7)
    assert ledger.begin(1, 0, 3) == Stale(7)
    assert ledger.took(1, 0, 7, 10, 10)


def test_rows_that_are_here_already_are_dropped() -> None:
    ledger = begun(Ledger(), (0, 10), (10, 10))
    assert not ledger.took(1, 0, 1, 5, 10)
    assert ledger.rows(1) == 20


@pytest.mark.parametrize(("start", "rows"), [(5, 10), (0, 30), (15, 10), (8, 1 << 40)])
def test_rows_of_which_some_are_here_are_an_error(start: int, rows: int) -> None:
    ledger = begun(Ledger(), (0, 10), (20, 10))
    with pytest.raises(ValueError, match="overlap"):
        ledger.took(1, 0, 1, start, rows)
    assert ledger.begin(1, 0, 1) == Begun(((0, 10), (20, 30)), ())
    assert ledger.rows(1) == 20


@pytest.mark.parametrize(("start", "rows"), [(-1, 5), (0, -5)])
def test_numbers_that_are_no_rows_are_an_error(start: int, rows: int) -> None:
    with pytest.raises(ValueError, match="no rows"):
        begun(Ledger()).took(1, 0, 1, start, rows)


def test_an_empty_batch_is_taken_and_changes_nothing() -> None:
    ledger = begun(Ledger(), (0, 10), (5, 0), (10, 0))
    assert ledger.begin(1, 0, 1) == Begun(((0, 10),), ())


def test_without_an_order_that_repeats_a_younger_attempt_sends_all_again() -> None:
    ledger = Ledger()
    ledger.begin(1, 0, 1, deterministic=False)
    assert ledger.took(1, 0, 1, 0, 10)
    assert ledger.begin(1, 0, 2, deterministic=False) == Begun(((0, 10),), (1,))
    assert ledger.took(1, 0, 2, 0, 15)
    assert not ledger.took(1, 0, 2, 0, 15), "the same attempt cannot send them twice"
    assert ledger.rows(1) == 25


def test_epochs_and_partitions_have_nothing_to_do_with_each_other() -> None:
    ledger = begun(Ledger(), (0, 10))
    assert ledger.begin(1, 1, 1) == Begun((), ())
    assert ledger.begin(2, 0, 1) == Begun((), ())
    assert ledger.took(2, 0, 1, 0, 10)
    assert (ledger.rows(1), ledger.rows(2), ledger.rows(3)) == (10, 10, 0)


def test_a_closed_epoch_and_those_before_it_take_nothing() -> None:
    ledger = begun(Ledger(), (0, 10))
    ledger.begin(2, 0, 1)
    assert ledger.took(2, 0, 1, 0, 4)
    ledger.begin(3, 0, 1)
    ledger.close(2)
    ledger.close(1)
    assert ledger.begin(1, 0, 9) == Closed(1)
    assert ledger.begin(2, 5, 9) == Closed(2)
    assert not ledger.took(2, 0, 1, 4, 4)
    assert ledger.rows(2) == 4
    assert ledger.took(3, 0, 1, 0, 4)


def test_an_epoch_that_nobody_began_can_be_closed() -> None:
    ledger = Ledger()
    ledger.close(0)
    assert ledger.begin(0, 0, 1) == Closed(0)
    assert ledger.rows(0) == 0


def test_batches_of_a_partition_nobody_said_hello_for_are_dropped() -> None:
    assert not Ledger().took(1, 0, 1, 0, 10)
    assert Ledger().is_fenced(1, 0, 1)


def test_what_several_workers_have_taken_is_put_together() -> None:
    assert merged([(20, 30), (0, 10), (10, 15), (5, 12), (40, 40)]) == ((0, 15), (20, 30))
    assert merged([]) == ()
