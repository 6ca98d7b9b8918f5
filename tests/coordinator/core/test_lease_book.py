"""The book of GPUs: every state, every way out of it, and who is not believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.core.errors import GpuHeld, InvalidRun, LeaseLost, UnknownGpu
from coordinator.core.gpu import GpuSight, LeaseState, LeaseToken
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_entry import QUARANTINE_AFTER, REVOKE_AFTER
from coordinator.core.lease_news import Acquired, BookEffect, Expired, Freed, Lapsed, Leased, Told
from tests.coordinator.core.gpu_scene import TTL, busy, free, request

FREE, HELD, RELEASING, UNPROVEN, QUARANTINED = LeaseState
NEVER = float("inf")


def book_of(*uuids: str) -> LeaseBook:
    book = LeaseBook("book")
    book.see("host", "boot", map(free, uuids or ("a",)), 0.0)
    return book


def state(book: LeaseBook, uuid: str = "a") -> LeaseState:
    book.check_invariants()
    return book.view(uuid).state


def told(book: LeaseBook) -> list[str]:
    return [each.text for each in book.take_effects() if isinstance(each, Told)]


def held() -> LeaseBook:
    book = book_of("a")
    book.acquire(request("r1"), 0.0)
    book.take_effects()
    return book


def releasing() -> LeaseBook:
    book = held()
    book.leaving("r1", "worker:0", 1.0)
    return book


def unproven() -> LeaseBook:
    book = held()
    book.lose("r1", "worker:0", "not heard of", 1.0)
    return book


def quarantined() -> LeaseBook:
    book = unproven()
    book.pass_time(1.0 + QUARANTINE_AFTER)
    return book


def put_aside() -> LeaseBook:
    book = book_of("a")
    book.quarantine("a", "it smells", 1.0)
    return book


def look(book: LeaseBook, *sights: GpuSight, boot: str = "boot", now: float = 5.0) -> None:
    number = book.look([sight.uuid for sight in sights])
    book.inspected("host", boot, number, sights, now)


Act = Callable[[LeaseBook], object]
WAYS: dict[str, tuple[Callable[[], LeaseBook], Act, LeaseState]] = {
    "granted": (book_of, lambda b: b.acquire(request("r1"), 0.0), HELD),
    "told to stop": (held, lambda b: b.leaving("r1", "worker:0", 1.0), RELEASING),
    "ends with proof": (held, lambda b: b.release("r1", "worker:0", [free("a")], 2.0), FREE),
    "leaves with proof": (releasing, lambda b: b.release("r1", "worker:0", [free("a")], 2.0), FREE),
    "ends without a look": (held, lambda b: b.release("r1", "worker:0", [], 2.0), UNPROVEN),
    "ends, busy": (releasing, lambda b: b.release("r1", "worker:0", [busy("a")], 2.0), UNPROVEN),
    "another's proof": (held, lambda b: b.release("r1", "worker:1", [free("a")], 2.0), HELD),
    "lost": (held, lambda b: b.lose("r1", "worker:0", "gone", 2.0), UNPROVEN),
    "lost while leaving": (releasing, lambda b: b.lose("r1", "worker:0", "gone", 2.0), UNPROVEN),
    "never claimed": (held, lambda b: b.return_unused("r1", "worker:0", 2.0), FREE),
    "never claimed, late": (unproven, lambda b: b.return_unused("r1", "worker:0", 2.0), UNPROVEN),
    "no proof in time": (unproven, lambda b: b.pass_time(1.0 + QUARANTINE_AFTER), QUARANTINED),
    "not yet": (unproven, lambda b: b.pass_time(QUARANTINE_AFTER), UNPROVEN),
    "time proves nothing": (quarantined, lambda b: b.pass_time(1e9), QUARANTINED),
    "inspected": (unproven, lambda b: look(b, free("a")), FREE),
    "inspected, late": (quarantined, lambda b: look(b, free("a")), FREE),
    "inspected, busy": (unproven, lambda b: look(b, busy("a")), UNPROVEN),
    "a look at a holder": (held, lambda b: look(b, free("a")), HELD),
    "holder's late proof": (
        quarantined, lambda b: b.release("r1", "worker:0", [free("a")], 99.0), FREE,
    ),
    "merely seen": (unproven, lambda b: b.see("host", "boot", [free("a")], 2.0), UNPROVEN),
    "seen after a restart": (unproven, lambda b: b.see("host", "new", [free("a")], 2.0), UNPROVEN),
    "restarted, looked at": (unproven, lambda b: look(b, free("a"), boot="new"), FREE),
    "restarted, was held": (held, lambda b: look(b, free("a"), boot="new", now=60.0), FREE),
    "restarted, but beats": (held, lambda b: look(b, free("a"), boot="new"), HELD),
    "restarted, busy": (held, lambda b: look(b, busy("a"), boot="new"), HELD),
    "cleared": (quarantined, lambda b: b.clear("a", "I looked", 99.0), FREE),
    "cleared early": (unproven, lambda b: b.clear("a", "I looked", 2.0), FREE),
    "put aside": (book_of, lambda b: b.quarantine("a", "it smells", 2.0), QUARANTINED),
    "put aside, proven": (put_aside, lambda b: look(b, free("a")), QUARANTINED),
    "put aside, restarted": (put_aside, lambda b: look(b, free("a"), boot="new"), QUARANTINED),
    "put aside, cleared": (put_aside, lambda b: b.clear("a", "repaired", 2.0), FREE),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_way_from_one_state_to_another(way: str) -> None:
    begin, act, end = WAYS[way]
    book = begin()
    state(book)
    act(book)
    assert state(book) is end


@pytest.mark.parametrize("begin", [held, releasing])
def test_an_operator_cannot_take_what_somebody_holds(begin: Callable[[], LeaseBook]) -> None:
    book = begin()
    for act in (book.clear, book.quarantine):
        with pytest.raises(GpuHeld, match="worker:0 of run r1"):
            act("a", "mine", 2.0)
    assert state(book) in (HELD, RELEASING)


def test_a_gpu_that_nobody_has_told_of_is_an_error_by_name() -> None:
    book = book_of("a")
    for act in (
        lambda: book.clear("b", "", 0.0),
        lambda: book.quarantine("b", "", 0.0),
        lambda: book.view("b"),
        lambda: book.look(["a", "b"]),
        lambda: book.stuck(["b"]),
        lambda: book.acquire(request("r", {"worker:0": ("b", 1)}), 0.0),
    ):
        with pytest.raises(UnknownGpu, match="knows no GPU b"):
            act()


def test_an_inspection_may_name_gpus_that_the_book_has_never_heard_of() -> None:
    book = unproven()
    book.inspected("host", "boot", book.look(["a"]), [busy("b"), free("a")], 3.0)
    assert (state(book, "a"), state(book, "b")) == (FREE, FREE)
    assert book.stuck(["a", "b"]) == ("b",)


# -- time --------------------------------------------------------------------------------------


def effects_at(book: LeaseBook, now: float) -> list[type[BookEffect]]:
    book.pass_time(now)
    book.check_invariants()
    return [type(each) for each in book.take_effects()]


def test_a_lapse_is_told_first_and_revoked_later() -> None:
    book = held()
    token = LeaseToken("book", 1)
    assert book.next_deadline() == TTL
    assert effects_at(book, TTL - 0.1) == []
    book.pass_time(TTL)
    assert book.take_effects() == [Lapsed("r1", "worker:0", "a")]
    assert state(book) is HELD, "its holder may be there"
    with pytest.raises(LeaseLost, match="has lapsed"):
        book.renew("r1", [token], TTL)
    assert book.next_deadline() == TTL + REVOKE_AFTER
    assert effects_at(book, TTL + REVOKE_AFTER) == [Told]
    assert state(book) is UNPROVEN
    with pytest.raises(LeaseLost, match="is over"):
        book.renew("r1", [token], TTL + REVOKE_AFTER)
    assert book.next_deadline() == TTL + REVOKE_AFTER + QUARANTINE_AFTER
    assert effects_at(book, 1e6) == [Told]
    assert book.next_deadline() == NEVER


def test_renewing_moves_the_lapse() -> None:
    book = held()
    book.renew("r1", [LeaseToken("book", 1)], 50.0)
    assert book.next_deadline() == 50.0 + TTL
    assert effects_at(book, TTL) == []


def test_of_several_leases_all_are_renewed_or_none() -> None:
    book = book_of("a", "b")
    book.acquire(request("r1", {"worker:0": ("a b", 2)}), 0.0)
    with pytest.raises(LeaseLost):
        book.renew("r1", [LeaseToken("book", 1), LeaseToken("book", 99)], 50.0)
    assert book.next_deadline() == TTL


@pytest.mark.parametrize(
    "who, token",
    [
        ("r1", LeaseToken("book", 2)),
        ("r1", LeaseToken("other", 1)),
        ("r2", LeaseToken("book", 1)),
        ("nobody", LeaseToken("book", 1)),
    ],
)
def test_what_is_not_held_cannot_be_renewed(who: str, token: LeaseToken) -> None:
    with pytest.raises(LeaseLost, match=str(token)):
        held().renew(who, [token], 1.0)


def test_a_superseded_lease_cannot_be_renewed() -> None:
    book = unproven()
    look(book, free("a"))
    book.acquire(request("r2"), 6.0)
    with pytest.raises(LeaseLost):
        book.renew("r1", [LeaseToken("book", 1)], 7.0)


@pytest.mark.parametrize("begin", [held, releasing, unproven])
def test_a_pause_of_the_coordinator_moves_every_deadline(begin: Callable[[], LeaseBook]) -> None:
    book = begin()
    book.take_effects()
    before = book.next_deadline()
    book.extend(1000.0)
    assert book.next_deadline() == before + 1000.0
    assert effects_at(book, before + 999.0) == []


def test_whether_a_request_still_has_everything() -> None:
    book = held()
    assert book.holds("r1")
    assert not book.holds("r2")
    book.pass_time(TTL)
    assert not book.holds("r1")


# -- tokens, and what is remembered --------------------------------------------------------------


def test_numbers_only_grow_and_go_on_where_the_last_book_ended() -> None:
    book = LeaseBook("book", last_number=41)
    book.see("host", "boot", [free("a")], 0.0)
    numbers = []
    for index in range(5):
        granted = book.acquire(request(f"r{index}"), 0.0)
        assert granted is not None
        numbers += [granted.tokens["a"].number, book.look(["a"])]
        book.release(f"r{index}", "worker:0", [free("a")], 1.0)
    assert numbers == list(range(42, 52))


def test_the_same_request_again_is_the_same_request() -> None:
    book = book_of("a")
    first = book.acquire(request("r1"), 0.0)
    assert first is not None
    assert book.acquire(request("r1"), 5.0) is first
    assert book.acquire(request("r2"), 5.0) is None
    assert book.acquire(request("r2"), 6.0) is None
    book.release("r1", "worker:0", [free("a")], 7.0)
    again = book.acquire(request("r2"), 8.0)
    assert again is not None
    assert again.tokens["a"] > first.tokens["a"]


@pytest.mark.parametrize(
    "asked",
    [
        request("r", {"worker:0": ("a", 2)}),
        request("r", {"worker:0": ("a", 0)}),
        request("r", {"worker:0": ("a a", 2)}),
        request("r", {"worker:0": ("", 1)}),
        request("r", ttl=0.0),
        request("r", ttl=NEVER),
        request("r", patience=-1.0),
        request("r", patience=float("nan")),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_leaves_nothing(asked: object) -> None:
    book = book_of("a")
    with pytest.raises(InvalidRun):
        book.acquire(asked, 0.0)  # type: ignore[arg-type]
    assert state(book) is FREE
    assert book.next_deadline() == NEVER


@pytest.mark.parametrize(
    "finish",
    [
        lambda b: b.release("r1", "worker:0", [free("a")], 1.0),
        lambda b: b.return_unused("r1", "worker:0", 1.0),
        lambda b: (b.lose("r1", "worker:0", "x", 1.0), look(b, free("a"))),
        lambda b: (b.lose("r1", "worker:0", "x", 1.0), b.clear("a", "x", 1.0)),
    ],
    ids=["released", "returned", "inspected", "cleared"],
)
def test_a_request_that_is_over_is_forgotten_and_cannot_come_back(finish: Act) -> None:
    book = held()
    finish(book)
    book.check_invariants()  # of requests that are over nothing is kept
    assert book.holders() == {}
    with pytest.raises(InvalidRun, match="r1 is over"):
        book.acquire(request("r1"), 9.0)


def test_a_request_ends_when_its_last_gpu_is_back() -> None:
    book = book_of("a", "b")
    book.acquire(request("r1", {"worker:0": ("a", 1), "worker:1": ("b", 1)}), 0.0)
    book.release("r1", "worker:0", [free("a")], 1.0)
    assert book.holders() == {"b": "r1"}
    book.acquire(request("r2"), 1.0)
    book.release("r1", "worker:1", [busy("b")], 2.0)
    look(book, free("b"))
    book.check_invariants()
    assert book.holders() == {"a": "r2"}


def test_a_gpu_that_is_free_again_is_told_with_the_lease_that_is_over() -> None:
    book = book_of("a")
    book.acquire(request("r1"), 0.0)
    book.take_effects()
    book.release("r1", "worker:0", [free("a")], 1.0)
    assert Freed("a", "host", LeaseToken("book", 1), "r1") in book.take_effects()


def test_what_is_told_can_be_taken_once() -> None:
    book = book_of("a")
    book.acquire(request("r1"), 0.0)
    book.acquire(request("r2", patience=3.0), 0.0)
    token = LeaseToken("book", 1)
    assert book.take_effects() == [
        Leased("a", "host", token, "r1", "run r1", "worker:0"),
        Acquired("r1", {"a": token}, {"worker:0": ("a",)}),
    ]
    assert book.take_effects() == []
    book.pass_time(3.0)
    why = "GPU a (Test GPU) on host is held by worker:0 of run r1, for 3 s"
    assert book.take_effects() == [Expired("r2", (why,))]
