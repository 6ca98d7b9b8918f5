"""Which rows make a batch of an inference feed, without sockets or clocks."""

from __future__ import annotations

from executor_agent.core.feed_batching import INPUT_LIMIT, LINGER, RESULT_LIMIT, Batching, Piece


def batching(*streams: str, kind: str = "rows") -> Batching:
    made = Batching()
    for stream in streams:
        made.open(stream, kind)
    return made


def test_a_batch_crosses_tasks_and_takes_the_oldest_rows_first() -> None:
    book = batching("a", "b")
    book.arrived("b", 3, 30, 0.0)
    book.arrived("a", 4, 40, 0.0)
    book.arrived("b", 5, 50, 0.0)
    assert book.take(6, 0.0) == (Piece("b", 3), Piece("a", 3))
    assert book.take(6, 0.0) == (Piece("a", 1), Piece("b", 5))
    assert book.waiting == 0


def test_too_few_rows_wait_for_others_for_a_moment_only() -> None:
    book = batching("a")
    book.arrived("a", 3, 30, 10.0)
    assert book.take(4, 10.0) == ()
    assert book.next_deadline() == 10.0 + LINGER
    assert book.take(4, 10.0 + LINGER) == (Piece("a", 3),)
    assert book.next_deadline() is None


def test_the_last_rows_of_all_wait_for_nobody() -> None:
    book = batching("a", "b")
    book.arrived("a", 3, 30, 0.0)
    book.ended("a")
    assert book.take(4, 0.0) == ()  # b may add to them
    book.ended("b")
    assert book.take(4, 0.0) == (Piece("a", 3),)


def test_rows_of_two_schemas_share_no_batch() -> None:
    book = batching("a")
    book.open("b", "other rows")
    book.arrived("a", 3, 30, 0.0)
    book.arrived("b", 4, 40, 0.0)
    assert book.take(4, 0.0) == (Piece("b", 4),)
    assert book.take(4, LINGER) == (Piece("a", 3),)


def test_a_task_that_fetches_no_results_is_passed_over_and_holds_up_nobody() -> None:
    book = batching("slow", "quick")
    book.results("slow", RESULT_LIMIT)
    book.arrived("slow", 4, 40, 0.0)
    assert book.take(4, 1.0) == ()
    assert book.next_deadline() is None
    book.arrived("quick", 2, 20, 1.0)
    book.ended("quick")
    assert book.take(4, 1.0) == (Piece("quick", 2),)
    book.results("slow", -1)
    assert book.take(4, 1.0) == (Piece("slow", 4),)


def test_a_stream_holds_so_many_bytes_and_no_more() -> None:
    book = batching("a", "b")
    book.arrived("a", 10, INPUT_LIMIT, 0.0)
    assert not book.accepts("a", 10)
    assert book.accepts("b", 10)
    book.take(5, 0.0)
    assert book.accepts("a", 10)


def test_a_batch_larger_than_the_bound_comes_together() -> None:
    book = batching("a")
    book.arrived("a", 10, 2 * INPUT_LIMIT, 0.0)
    assert book.accepts("a", 11)
    book.results("a", RESULT_LIMIT)
    assert not book.accepts("a", 11)  # nobody takes them now


def test_what_is_forgotten_is_in_no_batch() -> None:
    book = batching("a", "b")
    book.arrived("a", 3, 30, 0.0)
    book.arrived("b", 3, 30, 0.0)
    book.forget("a")
    book.forget("a")
    book.results("a", -1)
    assert book.take(6, LINGER) == (Piece("b", 3),)
