"""What the book of GPUs believes: old words, words from before a restart, and outsiders."""

from __future__ import annotations

import pytest

from coordinator.core.errors import LeaseLost
from coordinator.core.gpu import LeaseState, LeaseToken
from coordinator.core.lease_book import LeaseBook
from tests.coordinator.core.gpu_scene import busy, free, request
from tests.coordinator.core.test_lease_book import book_of, held, look, state, told, unproven

FREE, HELD, RELEASING, UNPROVEN, QUARANTINED = LeaseState


def test_an_inspection_that_is_older_than_the_lease_proves_nothing() -> None:
    """O11: the answer was on its way while the GPU was granted again."""
    book = unproven()
    number = book.look(["a"])
    book.inspected("host", "boot", number, [free("a")], 2.0)
    book.acquire(request("r2"), 3.0)
    book.lose("r2", "worker:0", "gone", 4.0)
    book.inspected("host", "boot", number, [free("a")], 5.0)
    assert state(book) is UNPROVEN


def test_a_number_that_this_book_has_never_given_proves_nothing() -> None:
    """The coordinator before a restart may have given it, long ago."""
    book = unproven()
    book.inspected("host", "boot", 1000, [free("a")], 2.0)
    assert state(book) is UNPROVEN


def test_a_late_word_from_before_a_restart_takes_nothing_from_the_holder() -> None:
    """Two boots, their words in the wrong order: only a look that is younger than the lease tells
    which of them is over."""
    book = LeaseBook("book")
    old = book.look([])
    book.see("host", "new", [free("a")], 1.0)
    granted = book.acquire(request("r1"), 2.0)
    assert granted is not None
    book.see("host", "old", [free("a")], 3.0)
    book.inspected("host", "old", old, [free("a")], 3.0)
    assert state(book) is HELD
    book.renew("r1", granted.tokens.values(), 4.0)
    assert book.stuck(["a"]) == (), "its holder is heard of: there is nothing to look at"
    book.see("host", "old", [free("a")], 60.0)
    assert book.stuck(["a"]) == ("a",), "worth a look"


def test_a_host_that_was_started_again_has_lost_the_lease_and_the_book_says_so() -> None:
    book = held()
    book.see("pod-2", "new", [free("a")], 60.0)
    assert "was seen on pod-2 under another boot" in told(book)[0]
    book.inspected("pod-2", "new", book.look(["a"]), [free("a")], 61.0)
    assert "was lost with host host" in told(book)[0]
    assert (state(book), book.view("a").hostname, book.view("a").boot_id) == (FREE, "pod-2", "new")
    with pytest.raises(LeaseLost):
        book.renew("r1", [LeaseToken("book", 1)], 62.0)


def test_nobodys_word_takes_a_gpu_from_a_holder_that_is_heard_of() -> None:
    """Whoever has an agent's token of another run may say what he likes."""
    book = held()
    for now in (1.0, 40.0, 80.0, 120.0):
        book.renew("r1", [LeaseToken("book", 1)], now)
        book.see("nowhere", "invented", [free("a")], now + 1.0)
        book.inspected("nowhere", "invented", book.look(["a"]), [free("a")], now + 2.0)
        assert state(book) is HELD
    assert book.view("a").hostname == "host"
    assert not told(book)


def test_the_proof_of_an_earlier_holder_does_not_take_the_lease_of_the_next() -> None:
    book = unproven()
    look(book, free("a"))
    book.acquire(request("r2"), 6.0)
    book.release("r1", "worker:0", [free("a")], 7.0)
    book.lose("r1", "worker:0", "gone", 7.0)
    book.return_unused("r1", "worker:0", 7.0)
    assert state(book) is HELD
    assert book.view("a").holder == "run r2"


# -- outsiders ---------------------------------------------------------------------------------


def test_a_gpu_in_the_hands_of_an_outsider_is_not_granted_and_named() -> None:
    """G1, G5: the holder and its pid are in the reason."""
    book = LeaseBook("book")
    book.see("host", "boot", [busy("a", "user alice", 77)], 0.0)
    assert book.acquire(request("r1"), 0.0) is None
    assert book.stuck(["a"]) == ("a",)
    expected = "GPU a (Test GPU) on host is in use by user alice (pid 77)"
    assert book.explain(request("r1")) == (expected,)
    assert book.view("a").reason == "in use by user alice"
    book.see("host", "boot", [free("a")], 1.0)
    assert state(book) is FREE, "the word may be older than the outsider"
    assert book.stuck(["a"]) == ("a",)
    book.inspected("host", "boot", book.look(["a"]), [free("a")], 2.0)
    assert state(book) is HELD


def test_an_outsider_is_news_once_so_that_those_who_wait_have_it_looked_at() -> None:
    book = book_of("a", "b")
    book.acquire(request("r1", {"worker:0": ("b", 1)}), 0.0)
    book.acquire(request("r2", {"worker:0": ("a b", 2)}), 0.0)
    book.take_effects()
    for _ in range(3):
        book.see("host", "boot", [busy("a", "user alice")], 1.0)
    assert [text for text in told(book) if "is in use by user alice" in text] != []
    assert told(book) == []


def test_a_refused_claim_keeps_the_gpu_back_until_somebody_has_seen_it_free() -> None:
    """Whatever the refusal says of it: else a host that refuses everything is asked for ever."""
    for sight in (busy("a", "user bob", 5), free("a")):
        book = held()
        book.refuse("r1", "worker:0", sight, 1.0)
        assert state(book) is FREE
        assert book.acquire(request("r2"), 2.0) is None
        look(book, free("a"))
        assert state(book) is HELD


def test_a_clear_also_ends_what_is_said_of_an_outsider() -> None:
    book = LeaseBook("book")
    book.see("host", "boot", [busy("a")], 0.0)
    book.clear("a", "that is me", 1.0)
    assert "was cleared by an operator: that is me" in told(book)[-1]
    assert book.acquire(request("r1"), 2.0) is not None
