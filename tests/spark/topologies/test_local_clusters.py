"""Executors of several slots and of one, several of them on one host."""

from __future__ import annotations

from collections import Counter
from typing import Any

from coordinator import Roles
from tests.spark.application import application
from tests.spark.topologies.scenario import train, whereabouts


def tell(args: Any, ctx: Any) -> dict[str, Any]:
    return {**whereabouts(ctx), "local_dir": ctx.local_dir, "spec": dict(ctx.cluster_spec)}


def count_on_all(spark: Any, slots: int) -> int:
    """Would wait for ever if one slot were still held."""
    return int(spark.sparkContext.parallelize(range(slots), slots).count())


def test_executors_of_several_slots_on_one_host_each_take_several_members(
    spark: Any, slots: int
) -> None:
    """R11: neither one executor a host nor one member an executor is needed."""
    outcome = train(spark, tell, None, Roles(worker=slots))
    members = list(outcome["returned"].values())
    assert len(members) == slots
    by_executor = Counter(member["executor_id"] for member in members)
    assert len(by_executor) == 2
    assert set(by_executor.values()) == {slots // 2}
    for own in ("pid", "address", "local_dir"):
        assert len({member[own] for member in members}) == slots, own
    assert all(member["spec"] == members[0]["spec"] for member in members)
    assert outcome["left"] == []


def test_executors_of_one_slot_hold_one_member_each_and_are_free_afterwards() -> None:
    """R11: the member's own task fills its executor; nothing else has to run beside it."""
    with application("local-cluster[2,1,1024]", executors=2) as driver:
        outcome = driver.call(train, tell, None, Roles(chief=1, worker=1))
        assert driver.call(count_on_all, 2) == 2
    members = outcome["returned"]
    assert set(members) == {"chief:0", "worker:0"}
    assert {member["executor_id"] for member in members.values()} == {"0", "1"}
    assert len(outcome["holders"]) == 2
    assert outcome["left"] == []
