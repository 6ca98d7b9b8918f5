"""Whom a member checks before it starts, and what it says of those it cannot reach (R9)."""

from __future__ import annotations

from executor_agent.core.peers import MAX_CHECKED, Peer, Unreached, to_check, ways_that_fail

SMALL = {
    "worker": ("10.0.0.3:1", "10.0.0.4:1"),
    "chief": ("10.0.0.1:1",),
    "ps": ("10.0.0.2:1",),
    "evaluator": ("10.0.0.5:1",),
}


def names(cluster_spec: dict[str, tuple[str, ...]], job: str, index: int) -> list[str]:
    return [peer.name for peer in to_check(cluster_spec, job, index)]


def test_a_member_checks_all_others_beginning_with_those_behind_it() -> None:
    assert names(SMALL, "chief", 0) == ["ps:0", "worker:0", "worker:1"]
    assert names(SMALL, "worker", 0) == ["worker:1", "chief:0", "ps:0"]
    assert to_check(SMALL, "worker", 1)[0] == Peer("chief:0", "10.0.0.1:1")


def test_an_evaluator_needs_nobody_and_nobody_needs_it() -> None:
    assert names(SMALL, "evaluator", 0) == []


def test_who_is_alone_has_nobody_to_check() -> None:
    assert names({"worker": ("10.0.0.1:1",)}, "worker", 0) == []


def test_in_a_large_cluster_any_two_that_are_near_are_checked_by_the_earlier_one() -> None:
    size = 3 * MAX_CHECKED
    large = {"chief": ("c:1",), "worker": tuple(f"w:{n}" for n in range(size))}
    ring = ["chief:0", *(f"worker:{n}" for n in range(size))]
    for at, name in enumerate(ring):
        job, _, index = name.partition(":")
        behind = [ring[(at + step) % len(ring)] for step in range(1, MAX_CHECKED + 1)]
        assert names(large, job, int(index)) == behind


def test_in_a_cluster_of_one_more_than_is_checked_everybody_checks_all_others() -> None:
    full = {"worker": tuple(f"w:{n}" for n in range(MAX_CHECKED + 1))}
    for index in range(MAX_CHECKED + 1):
        assert len(set(names(full, "worker", index)) - {f"worker:{index}"}) == MAX_CHECKED


def test_the_other_ends_are_named_with_what_to_do() -> None:
    text = ways_that_fail([Unreached(Peer("worker:1", "10.0.0.6:41234"), "timed out after 5 s")])
    assert text.startswith("worker:1 at 10.0.0.6:41234: timed out after 5 s: is a firewall between")
    assert "network=" in text


def test_of_many_only_the_first_are_named_and_the_rest_counted() -> None:
    many = [Unreached(Peer(f"worker:{n}", f"10.0.0.{n}:1"), "no") for n in range(64)]
    text = ways_that_fail(many)
    assert "worker:4 at 10.0.0.4:1: no; and 59 more: is a firewall" in text
    assert "worker:5 " not in text
