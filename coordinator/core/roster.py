"""Which Spark partition is which role and index: deterministic, so that a retried task of Spark
claims the same slot again (R3), whatever executor it lands on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from coordinator.core.errors import ExecutorUnfit
from coordinator.core.model import (
    ClusterSpec,
    Endpoint,
    ExecutorInfo,
    MemberId,
    MemberView,
    Role,
    Roles,
    RunSpec,
)

MAX_JOBS = 64
"""One Spark job for each member up to here; beyond it members share jobs (ARCHITECTURE.md, "The
Spark side")."""

_ORDER = (Role.CHIEF, Role.PS, Role.WORKER, Role.EVALUATOR)


def members(roles: Roles) -> tuple[MemberId, ...]:
    """All slots of a run, in the order in which they are launched."""
    return tuple(MemberId(role, index) for role in _ORDER for index in range(roles.count(role)))


def jobs(roles: Roles, max_jobs: int = MAX_JOBS) -> tuple[tuple[MemberId, ...], ...]:
    """The members of each Spark job; partition ``k`` of a job is its ``k``-th member."""
    slots = members(roles)
    count = min(len(slots), max_jobs)
    size, larger = divmod(len(slots), count)
    chunks: list[tuple[MemberId, ...]] = []
    start = 0
    for number in range(count):
        end = start + size + (1 if number < larger else 0)
        chunks.append(slots[start:end])
        start = end
    return tuple(chunks)


def check_fitness(spec: RunSpec, executor: ExecutorInfo) -> None:
    """Raises ExecutorUnfit when no member of the run can live on this executor."""
    wanted, found = spec.python_version, executor.python_version
    if wanted and found and found.split(".")[:2] != wanted.split(".")[:2]:
        raise ExecutorUnfit(
            f"{executor} runs Python {found}, the driver {wanted}: set PYSPARK_PYTHON on the "
            "executors to the same minor version",
            {"executor_python": found, "driver_python": wanted},
        )
    wanted, found = spec.tflease_version, executor.tflease_version
    if wanted and found != wanted:
        raise ExecutorUnfit(
            f"{executor} has tflease {found or 'of unknown version'}, the driver {wanted}: install "
            "the same version for the executors' Python",
            {"executor_tflease": found, "driver_tflease": wanted},
        )


def cluster_spec(endpoints: Iterable[tuple[MemberId, Endpoint]]) -> ClusterSpec:
    """TensorFlow's cluster spec; every index of a role must be there."""
    jobs: dict[str, dict[int, str]] = {}
    for member, endpoint in endpoints:
        jobs.setdefault(member.role.value, {})[member.index] = endpoint.address
    spec: dict[str, tuple[str, ...]] = {}
    for role in Role:
        by_index = jobs.get(role.value)
        if by_index is not None:
            spec[role.value] = tuple(by_index[index] for index in range(len(by_index)))
    return spec


def address_problem(members: Iterable[MemberView]) -> str:
    """What is wrong with a gang's addresses, or "": TensorFlow would only hang on an address
    that others cannot reach, or that two members share (R9).

    Only what is certain to fail. Addresses are compared as what they are, never as text that
    begins alike (R10), and hosts by their boot id: each container on a host has a name of its own.
    """
    all_members = list(members)
    hosts = {member.executor.boot_id for member in all_members if member.executor is not None}
    at_endpoint: dict[tuple[str, int], MemberView] = {}
    at_address: dict[str, MemberView] = {}
    for member in all_members:
        if member.endpoint is None:
            continue
        problem = _endpoint_problem(member.endpoint, is_alone=len(hosts) < 2)
        if problem:
            return f"{member.id} on {member.executor} advertises {member.endpoint.address}{problem}"
        address = _normal(member.endpoint.host)
        other = at_endpoint.setdefault((address, member.endpoint.port), member)
        if other is not member:
            return f"{other.id} and {member.id} both advertise {member.endpoint.address}"
        other = at_address.setdefault(address, member)
        if _on_two_hosts(other, member):
            return (
                f"{other.id} on {other.executor} and {member.id} on {member.executor} both "
                f"advertise {member.endpoint.host}, but are on two machines: it may be the "
                "address of a container or virtual machine that only its own host reaches; say "
                "which network members share (network=...)"
            )
    return ""


def _endpoint_problem(endpoint: Endpoint, *, is_alone: bool) -> str:
    """``is_alone``: all members are on one host."""
    if endpoint.is_loopback and not is_alone:
        return (
            ", which members on other hosts cannot reach: set spark.driver.host to an address "
            "that executors route to over the network, or say which network members share "
            "(network=...)"
        )
    if not 1 <= endpoint.port <= 65535:
        return ", which is no TCP port"
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        return ""  # a name, or of one interface ("fe80::1%eth0"): who can tell
    if address.is_unspecified or address.is_multicast:
        return ", which is the address of no host"
    return ""


def _normal(host: str) -> str:
    """An address of version 6 can be written in many ways."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _on_two_hosts(one: MemberView, other: MemberView) -> bool:
    if one.executor is None or other.executor is None:
        return False
    return one.executor.boot_id != other.executor.boot_id
