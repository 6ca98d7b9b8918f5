"""`ctx.shard`: every item is exactly one member's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_agent.core.shards import place_of, share_of

SPEC = {"chief": ["a"], "worker": ["b", "c"], "ps": ["d"], "evaluator": ["e"]}


def spec_of(chiefs: int, workers: int) -> dict[str, list[str]]:
    roles = {"chief": chiefs, "worker": workers, "ps": 2}
    return {role: [f"{role}{i}" for i in range(count)] for role, count in roles.items()}


@given(
    items=st.lists(st.integers()),
    chiefs=st.integers(0, 1),
    workers=st.integers(1, 9),
    data=st.data(),
)
def test_shares_are_disjoint_complete_balanced_and_stable(
    items: list[int], chiefs: int, workers: int, data: st.DataObject
) -> None:
    spec = spec_of(chiefs, workers)
    members = [("chief", 0)] * chiefs + [("worker", index) for index in range(workers)]
    numbered = list(enumerate(items))
    shares = [share_of(numbered, *place_of(spec, *member)) for member in members]
    together = [item for share in shares for item in share]
    assert sorted(together) == numbered  # none twice, none forgotten
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)  # in the order given
    again = data.draw(st.sampled_from(members))
    assert share_of(iter(numbered), *place_of(spec, *again)) == shares[members.index(again)]


def test_the_chief_comes_first_and_the_workers_follow() -> None:
    members = [("chief", 0), ("worker", 0), ("worker", 1)]
    assert [share_of(["first", 1, 2], *place_of(SPEC, *each)) for each in members] == [
        ["first"],
        [1],
        [2],
    ]
    assert place_of({"worker": ["a", "b"]}, "worker", 0) == (0, 2)


@pytest.mark.parametrize("role", ["ps", "evaluator"])
def test_who_does_not_train_is_told_so(role: str) -> None:
    with pytest.raises(ValueError, match=f"a {role} does not train"):
        place_of(SPEC, role, 0)


def test_who_is_not_in_the_cluster_has_no_share() -> None:
    with pytest.raises(ValueError, match="no worker 2"):
        place_of(SPEC, "worker", 2)


def test_an_order_that_differs_between_processes_is_refused() -> None:
    for items in ({"a", "b"}, frozenset("ab")):
        with pytest.raises(TypeError, match="sorted"):
            share_of(items, 0, 2)
    assert share_of({"b": 1, "a": 2}.keys(), 0, 2) == ["b"]


def test_a_single_name_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match="one item"):
        share_of("s3://bucket/part-0", 0, 2)
