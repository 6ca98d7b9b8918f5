"""Which task is which member, and what TensorFlow is told of them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import roster
from coordinator.core.errors import ExecutorUnfit
from coordinator.core.model import (
    Endpoint,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunSpec,
)
from tests.coordinator.core.scene import executor


def test_slots_are_launched_chief_first_then_ps_workers_evaluator() -> None:
    slots = roster.members(Roles(chief=1, worker=2, ps=1, evaluator=1))
    assert [str(slot) for slot in slots] == [
        "chief:0",
        "ps:0",
        "worker:0",
        "worker:1",
        "evaluator:0",
    ]


def test_the_same_roles_always_give_the_same_slots_and_jobs() -> None:
    """R3: a retried task claims the slot that its partition had before."""
    roles = Roles(chief=1, worker=150, ps=20, evaluator=1)
    assert roster.members(roles) == roster.members(Roles.of({"worker": 150, "ps": 20, "chief": 1,
                                                             "evaluator": 1}))  # fmt: skip
    assert roster.jobs(roles) == roster.jobs(roles)


@pytest.mark.parametrize("total", [1, 2, 63, 64, 65, 100, 127, 128, 129, 1000])
def test_every_slot_is_in_one_job_and_jobs_differ_by_one_member_at_most(total: int) -> None:
    roles = Roles(worker=total)
    jobs = roster.jobs(roles)
    assert tuple(itertools.chain.from_iterable(jobs)) == roster.members(roles)
    assert len(jobs) == min(total, roster.MAX_JOBS)
    sizes = {len(job) for job in jobs}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_up_to_64_members_each_has_a_job_of_its_own() -> None:
    assert {len(job) for job in roster.jobs(Roles(worker=64))} == {1}
    assert [len(job) for job in roster.jobs(Roles(worker=65))] == [2] + [1] * 63


def test_the_number_of_jobs_can_be_chosen() -> None:
    assert [len(job) for job in roster.jobs(Roles(worker=5), max_jobs=2)] == [3, 2]


def test_the_cluster_spec_is_ordered_by_index_whatever_order_members_come_in() -> None:
    slots = roster.members(Roles(chief=1, worker=12, ps=1))
    endpoints = [(slot, Endpoint(f"h-{slot.role.value}", 100 + slot.index)) for slot in slots]
    spec = roster.cluster_spec(reversed(endpoints))
    assert spec == roster.cluster_spec(endpoints)
    assert spec["worker"] == tuple(f"h-worker:{100 + index}" for index in range(12))
    assert spec["chief"] == ("h-chief:100",)
    assert "evaluator" not in spec


def view(index: int, host: str, endpoint: Endpoint | None) -> MemberView:
    slot = MemberId(Role.WORKER, index)
    return MemberView(slot, MemberPhase.READY, 0.0, executor=executor(host), endpoint=endpoint)


def test_a_loopback_address_is_refused_as_soon_as_members_are_on_two_hosts() -> None:
    """R9"""
    alone = [view(0, "a", Endpoint("127.0.0.1", 1)), view(1, "a", Endpoint("127.0.0.1", 2))]
    assert roster.address_problem(alone) == ""
    apart = [view(0, "a", Endpoint("10.0.0.1", 1)), view(1, "b", Endpoint("127.0.0.1", 2))]
    problem = roster.address_problem(apart)
    assert problem.startswith("worker:1 on b advertises 127.0.0.1:2, which members on other hosts")
    assert "spark.driver.host" in problem


def test_two_members_at_one_address_are_both_named() -> None:
    """R10"""
    same = [view(0, "a", Endpoint("10.0.0.1", 1)), view(1, "b", Endpoint("10.0.0.1", 1))]
    assert roster.address_problem(same) == "worker:0 and worker:1 both advertise 10.0.0.1:1"
    similar = [view(0, "a", Endpoint("10.0.0.1", 1)), view(1, "b", Endpoint("10.0.0.10", 1))]
    assert roster.address_problem(similar) == ""


def test_hosts_whose_names_begin_alike_are_different_hosts() -> None:
    """R10: the boot ids decide, as a whole; here "boot-of-10.0.0.1" begins the other one."""
    alike = [view(0, "10.0.0.1", Endpoint("127.0.0.1", 1)), view(1, "10.0.0.10", None)]
    assert "which members on other hosts cannot reach" in roster.address_problem(alike)
    same = [view(0, "10.0.0.1", Endpoint("127.0.0.1", 1)), view(1, "10.0.0.1", None)]
    assert roster.address_problem(same) == ""


ALIKE = st.builds(
    Endpoint,
    st.sampled_from(["10.0.0.1", "10.0.0.10", "10.0.0.100", "10.0.0.11", "1.10.0.0.1", "10.0.0"]),
    st.sampled_from([1, 10, 11, 100, 1000]),
)


@given(st.lists(ALIKE, min_size=1, max_size=12))
def test_addresses_are_the_same_only_when_all_of_them_is(endpoints: list[Endpoint]) -> None:
    """R10: 10.0.0.1 is no prefix match of 10.0.0.10, nor port 1 one of port 10."""
    members = [view(index, "a", endpoint) for index, endpoint in enumerate(endpoints)]
    first_of: dict[tuple[str, int], int] = {}
    clash = ""
    for index, endpoint in enumerate(endpoints):
        first = first_of.setdefault((endpoint.host, endpoint.port), index)
        if first != index:
            clash = f"worker:{first} and worker:{index} both advertise "
            break
    problem = roster.address_problem(members)
    assert problem.startswith(clash)
    assert bool(problem) == bool(clash)
    spec = roster.cluster_spec((member.id, endpoints[member.id.index]) for member in members)
    assert spec == {"worker": tuple(f"{each.host}:{each.port}" for each in endpoints)}


def test_an_executor_with_another_python_is_unfit_and_told_what_to_change() -> None:
    spec = RunSpec(roles=Roles(worker=1), python_version="3.11.9")
    roster.check_fitness(spec, executor(python_version="3.11.2"))
    roster.check_fitness(spec, executor(python_version=""))
    with pytest.raises(ExecutorUnfit, match="set PYSPARK_PYTHON") as caught:
        roster.check_fitness(spec, executor(python_version="3.12.1"))
    assert caught.value.metadata == {"executor_python": "3.12.1", "driver_python": "3.11.9"}
