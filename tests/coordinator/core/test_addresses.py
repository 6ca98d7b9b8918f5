"""Addresses of a gang with which it is certain to fail are refused when it forms (R9, R10)."""

from __future__ import annotations

import pytest

from coordinator.core import roster
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
)


def gang(*members: tuple[str, str, int]) -> list[MemberView]:
    """Workers, each as (the machine's boot id and name, address, port)."""
    return [
        MemberView(
            MemberId(Role.WORKER, index),
            MemberPhase.READY,
            0.0,
            executor=ExecutorInfo(host, boot_id=host, pid=1),
            endpoint=Endpoint(address, port),
        )
        for index, (host, address, port) in enumerate(members)
    ]


@pytest.mark.parametrize(
    "members",
    [
        [("a", "10.0.0.1", 1), ("a", "10.0.0.1", 2)],
        [("a", "10.0.0.1", 1), ("b", "10.0.0.10", 1)],  # R10
        [("a", "10.0.0.1", 1), ("b", "10.0.0.2", 1)],
        [("a", "127.0.0.1", 1), ("a", "127.0.0.1", 2)],
        [("a", "10.0.0.1", 1), ("a", "10.1.0.1", 1)],  # one host, two networks
        [("a", "fd00::1", 1), ("b", "fd00::10", 1)],
        [("a", "host-1", 1), ("b", "host-10", 1)],
    ],
)
def test_addresses_that_may_work_are_let_through(members: list[tuple[str, str, int]]) -> None:
    assert roster.address_problem(gang(*members)) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1", "localhost"])
def test_a_loopback_address_among_several_hosts_is_refused(address: str) -> None:
    """R9."""
    problem = roster.address_problem(gang(("a", "10.0.0.1", 1), ("b", address, 2)))
    assert problem.startswith("worker:1 on b advertises ")
    assert ", which members on other hosts cannot reach: set spark.driver.host" in problem
    assert "network=" in problem


def test_one_address_on_two_machines_is_refused_and_both_are_named() -> None:
    """R9: what every host calls its container."""
    problem = roster.address_problem(gang(("a", "172.17.0.2", 1), ("b", "172.17.0.2", 2)))
    assert problem.startswith("worker:0 on a and worker:1 on b both advertise 172.17.0.2, but are")
    assert "network=" in problem


def test_one_address_written_in_two_ways_is_one_address() -> None:
    """R10: identity is that of the address, not of its text."""
    same = gang(("a", "fd00::1", 1), ("a", "fd00:0:0:0:0:0:0:1", 1))
    assert roster.address_problem(same).startswith("worker:0 and worker:1 both advertise ")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
def test_an_address_that_is_no_host_s_is_refused(address: str) -> None:
    problem = roster.address_problem(gang(("a", address, 1), ("a", "10.0.0.1", 1)))
    assert problem.startswith("worker:0 on a advertises ")
    assert problem.endswith(", which is the address of no host")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    problem = roster.address_problem(gang(("a", "10.0.0.1", port)))
    assert problem == f"worker:0 on a advertises 10.0.0.1:{port}, which is no TCP port"
