"""Who waits for GPUs: all or nothing, first come first served, and nobody for ever in vain."""

from __future__ import annotations

import pytest

from coordinator.core.gpu import LeaseState
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_news import Acquired
from coordinator.core.lease_queue import shortage
from tests.coordinator.core.gpu_scene import busy, free, request


def book_of(uuids: str) -> LeaseBook:
    book = LeaseBook("book")
    book.see("host", "boot", map(free, uuids.split()), 0.0)
    return book


def release(book: LeaseBook, name: str, *uuids: str, who: str = "worker:0") -> None:
    book.release(name, who, map(free, uuids), 1.0)
    book.check_invariants()


def granted(book: LeaseBook) -> list[str]:
    """Who has got its GPUs since."""
    return [each.request_id for each in book.take_effects() if isinstance(each, Acquired)]


def test_a_gang_has_all_of_its_gpus_or_none() -> None:
    book = book_of("a b")
    book.acquire(request("one", {"worker:0": ("b", 1)}), 0.0)
    gang = request("gang", {"worker:0": ("a", 1), "worker:1": ("b", 1)})
    assert book.acquire(gang, 0.0) is None
    assert book.view("a").state is LeaseState.FREE
    assert book.explain(gang, "worker:0") == ()
    assert book.explain(gang) == ("GPU b (Test GPU) on host is held by worker:0 of run one",)
    release(book, "one", "b")
    assert granted(book) == ["one", "gang"]


def test_first_come_first_served() -> None:
    book = book_of("a")
    for name in ("r1", "r2", "r3", "r4"):
        book.acquire(request(name), 0.0)
    for name in ("r1", "r2", "r3"):
        release(book, name, "a")
    assert granted(book) == ["r1", "r2", "r3", "r4"]


def test_who_needs_less_does_not_pass_who_came_before() -> None:
    """Else a gang would wait for ever behind those that need one each."""
    book = book_of("a b")
    book.acquire(request("small", {"worker:0": ("a", 1)}), 0.0)
    book.acquire(request("big", {"worker:0": ("a b", 2)}), 0.0)
    late = request("late", {"worker:0": ("a b", 1)})
    assert book.acquire(late, 0.0) is None
    texts = book.explain(late)
    assert "GPU b is free, but run big waits for it longer" in texts
    release(book, "small", "a")
    assert granted(book) == ["small", "big"]


def test_who_wants_other_gpus_does_not_wait_for_those_before() -> None:
    book = book_of("a b")
    book.acquire(request("r1", {"worker:0": ("a", 1)}), 0.0)
    book.acquire(request("r2", {"worker:0": ("a", 1)}), 0.0)
    assert book.acquire(request("r3", {"worker:0": ("b", 1)}), 0.0) is not None


def test_two_that_want_the_same_two_never_hold_one_each() -> None:
    book = book_of("a b")
    forth = request("r1", {"worker:0": ("a", 1), "worker:1": ("b", 1)})
    back = request("r2", {"worker:0": ("b", 1), "worker:1": ("a", 1)})
    assert book.acquire(forth, 0.0) is not None
    assert book.acquire(back, 0.0) is None
    release(book, "r1", "a")
    assert granted(book) == ["r1"], "nobody takes the half"
    release(book, "r1", "b", who="worker:1")
    assert granted(book) == ["r2"]


def test_who_withdraws_lets_the_next_one_pass() -> None:
    book = book_of("a b")
    book.acquire(request("r1", {"worker:0": ("a", 1)}), 0.0)
    book.acquire(request("r2", {"worker:0": ("a b", 2)}), 0.0)
    book.acquire(request("r3", {"worker:0": ("b", 1)}), 0.0)
    book.withdraw("r2", 1.0)
    book.withdraw("never asked", 1.0)
    assert granted(book) == ["r1", "r3"]


def test_who_has_no_patience_left_lets_the_next_one_pass() -> None:
    book = book_of("a b")
    book.acquire(request("r1", {"worker:0": ("a", 1)}), 0.0)
    book.acquire(request("r2", {"worker:0": ("a b", 2)}, patience=5.0), 0.0)
    book.acquire(request("r3", {"worker:0": ("b", 1)}), 0.0)
    assert book.next_deadline() == 5.0
    book.extend(2.0)
    assert book.next_deadline() == 7.0
    book.pass_time(7.0)
    assert granted(book) == ["r1", "r3"]


def test_where_the_inventory_is_larger_than_the_want_another_gpu_will_do() -> None:
    book = book_of("a b c")
    book.see("host", "boot", [busy("a")], 0.0)
    book.quarantine("b", "broken", 0.0)
    got = book.acquire(request("r1", {"worker:0": ("a b c", 1)}), 0.0)
    assert got is not None
    assert got.uuids == {"worker:0": ("c",)}


@pytest.mark.parametrize(
    "wants",
    [
        {"x": ("a b", 1), "y": ("a c", 1), "z": ("a c", 1)},
        {"x": ("a b c", 1), "y": ("a b", 1), "z": ("a b", 1)},
        {"x": ("a b d", 1), "y": ("a b c", 3)},
        {"x": ("a b", 1), "y": ("b c", 1), "z": ("c d", 1), "w": ("a", 1)},
    ],
)
def test_whatever_can_be_had_by_all_together_is_found(wants: dict[str, tuple[str, int]]) -> None:
    """Containers of one host may each see another part of it, and the parts may overlap."""
    got = book_of("a b c d").acquire(request("r", wants), 0.0)
    assert got is not None
    for who, (uuids, count) in wants.items():
        assert len(got.uuids[who]) == count
        assert set(got.uuids[who]) <= set(uuids.split())
    assert len(got.tokens) == sum(count for _, count in wants.values()), "nobody shares"


def test_who_can_never_be_served_is_told_why() -> None:
    """G4: two members on one host with one GPU would otherwise wait in silence."""
    book = book_of("a b")
    asked = request("r", {"x": ("a", 1), "y": ("a", 1), "z": ("b", 1)})
    assert book.acquire(asked, 0.0) is None
    short = shortage(asked)
    expected = "x, y want 2 GPUs in all, but there are only 1 where they are (a)"
    assert short == {"x": expected, "y": expected}
    assert expected in book.explain(asked)
    assert shortage(request("r", {"x": ("a", 1), "z": ("b", 1)})) == {}


def test_a_shortage_among_some_of_them_only_is_told_too() -> None:
    asked = request("r", {"x": ("a b", 1), "y": ("a b", 1), "z": ("a b", 1), "w": ("b c d", 1)})
    assert book_of("a b c d").acquire(asked, 0.0) is None
    assert "more GPUs than there are" in shortage(asked)["x"]
