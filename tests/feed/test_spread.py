"""Which worker gets the next batch, and who is connected to."""

from __future__ import annotations

from executor_agent.core.feed_spread import (
    CONNECTIONS_AT_ONCE,
    PATIENCE,
    Candidate,
    Target,
    choose,
    first_to_open,
    next_to_open,
)


def near(name: str, rows: int = 0, credit: int = 2) -> Target:
    return Target(name, rows, credit, is_local=True)


def far(name: str, rows: int = 0, credit: int = 2) -> Target:
    return Target(name, rows, credit, is_local=False)


MANY = [Candidate(f"w{index}", is_local=index == 17) for index in range(20)]


def test_the_local_worker_is_preferred_until_it_is_four_batches_ahead() -> None:
    assert choose([far("b", 100), near("a", 500)], batch_rows=100) == "a"
    assert choose([far("b", 100), near("a", 501)], batch_rows=100) == "b"


def test_among_several_local_workers_the_one_with_the_fewest_rows() -> None:
    assert choose([near("a", 5), near("b", 3), far("c", 2)], batch_rows=10) == "b"


def test_without_a_local_worker_the_one_with_the_fewest_rows() -> None:
    assert choose([far("a", 5), far("b", 3), far("c", 4)], batch_rows=10) == "b"


def test_a_worker_without_credit_gets_nothing_and_is_no_measure() -> None:
    assert choose([near("a", 9000), far("b", 0, credit=0)], batch_rows=10) == "a"
    assert choose([near("a", 0, credit=0), far("b", 9000)], batch_rows=10) == "b"


def test_without_any_credit_nobody_gets_it() -> None:
    assert choose([near("a", credit=0), far("b", credit=0)], batch_rows=10) is None
    assert choose([], batch_rows=10) is None


def test_at_first_the_local_ones_and_at_most_eight_are_connected() -> None:
    members = first_to_open(MANY, partition=3)
    assert members == ("w17", "w3", "w4", "w5", "w6", "w7", "w8", "w9")
    assert len(members) == CONNECTIONS_AT_ONCE
    assert first_to_open([], partition=3) == ()


def test_every_partition_begins_at_another_worker() -> None:
    """Else all feeders that start together send their first batch to the same one."""
    assert [first_to_open(MANY[:3], partition)[0] for partition in range(4)] == [
        "w0", "w1", "w2", "w0",
    ]  # fmt: skip


def test_more_are_connected_when_there_is_no_credit_for_a_while() -> None:
    open_now = first_to_open(MANY, partition=3)
    assert next_to_open(MANY, open_now, 3, PATIENCE - 0.01) == ()
    more = next_to_open(MANY, open_now, 3, PATIENCE)
    assert len(more) == CONNECTIONS_AT_ONCE
    assert not set(more) & set(open_now)
    rest = next_to_open(MANY, {*open_now, *more}, 3, PATIENCE)
    assert {*open_now, *more, *rest} == {one.member for one in MANY}
    assert next_to_open(MANY, {one.member for one in MANY}, 3, PATIENCE) == ()


def test_of_those_not_connected_the_ones_with_the_fewest_rows_come_first() -> None:
    known = [Candidate("a", is_local=False, rows=50), Candidate("b", is_local=False, rows=7)]
    assert next_to_open([*known, Candidate("c", is_local=False, rows=9)], {"a"}, 0, 1.0) == (
        "b",
        "c",
    )
