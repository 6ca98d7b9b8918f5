"""What can be asked for, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from coordinator.core.errors import InvalidRun
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    MemberId,
    MemberPhase,
    Role,
    Roles,
    RunPhase,
    RunSpec,
)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"worker": -1}, "worker=-1: a role cannot have less than 0 members"),
        ({"worker": 1.0}, "worker=1.0: the number of members must be an int"),
        ({"worker": True}, "worker=True: the number of members must be an int"),
        ({"worker": "2"}, "worker='2': the number of members must be an int"),
        ({"master": 1}, "unknown role 'master': roles are chief, worker, ps, evaluator"),
        (3, "roles must be Roles(...) or a mapping, not 3"),
    ],
)
def test_impossible_roles_are_refused_with_the_argument_named(given: Any, message: str) -> None:
    with pytest.raises(InvalidRun) as caught:
        Roles.of(given)
    assert caught.value.message == message


def test_roles_come_as_a_mapping_too() -> None:
    assert Roles.of({"chief": 1, "worker": 2}) == Roles(chief=1, worker=2)
    assert Roles.of(Roles(ps=1)) == Roles(ps=1)


def test_roles_are_counted_by_role_and_in_total() -> None:
    roles = Roles(chief=1, worker=2, ps=3, evaluator=1)
    assert [roles.count(role) for role in Role] == [1, 2, 3, 1]
    assert roles.total == 7


@pytest.mark.parametrize(
    "roles, more, message",
    [
        (Roles(), {}, "roles has no members: ask for at least Roles(worker=1)"),
        (Roles(chief=2), {}, "chief=2: TensorFlow allows one chief at most"),
        (Roles(ps=1, evaluator=1), {}, "nobody trains: ask for a chief or at least one worker"),
        (
            Roles(worker=1),
            {"reservation_timeout": 0},
            "reservation_timeout=0: must be more than 0 seconds",
        ),
        (
            Roles(worker=1),
            {"fence_timeout": float("nan")},
            "fence_timeout=nan: must be more than 0 seconds",
        ),
        (Roles(worker=1), {"liveness_ttl": -1}, "liveness_ttl=-1: must be more than 0 seconds"),
        (
            Roles(worker=1),
            {"beat_interval": 15.0},
            "beat_interval must be shorter than liveness_ttl",
        ),
        (
            Roles(worker=1),
            {"liveness_ttl": 121.0},
            "liveness_ttl must not be longer than fence_timeout",
        ),
        (
            Roles(worker=1),
            {"grace": {Role.WORKER: -1.0}},
            "grace of worker: -1.0 is not in 0..600.0 s",
        ),
        (
            Roles(worker=1),
            {"grace": {Role.PS: float("nan")}},
            "grace of ps: nan is not in 0..600.0 s",
        ),
        (
            Roles(worker=1),
            {"completion": frozenset({Role.CHIEF})},
            "completion names chief, which has no members",
        ),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(
    roles: Roles, more: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRun) as caught:
        RunSpec(roles=roles, **more)
    assert caught.value.message == message


def test_the_defaults_make_a_valid_run_with_a_grace_for_every_role() -> None:
    spec = RunSpec(roles=Roles(worker=1), grace={Role.WORKER: 60.0})
    assert [spec.grace_of(role) for role in Role] == [5.0, 60.0, 0.0, 5.0]


def test_a_member_id_reads_what_it_writes() -> None:
    for text in ("chief:0", "worker:12", "ps:3", "evaluator:0"):
        assert str(MemberId.parse(text)) == text
    for text in ("worker", "worker:", "worker:x", "master:0", ""):
        with pytest.raises(ValueError):
            MemberId.parse(text)


@pytest.mark.parametrize(
    "host, address, loopback",
    [
        ("10.0.0.1", "10.0.0.1:8000", False),
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.1.1", "127.0.1.1:8000", True),
        ("localhost", "localhost:8000", True),
        ("::1", "[::1]:8000", True),
        ("127.evil.example", "127.evil.example:8000", False),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example:8000", False),
        ("localhost.evil.example", "localhost.evil.example:8000", False),
        ("fe80::1", "[fe80::1]:8000", False),
    ],
)
def test_an_endpoint_is_written_as_tensorflow_reads_it(
    host: str, address: str, loopback: bool
) -> None:
    """R9"""
    endpoint = Endpoint(host, 8000)
    assert endpoint.address == address
    assert endpoint.is_loopback is loopback


def test_phases_are_live_or_ended_or_in_between_never_both() -> None:
    between = {MemberPhase.EXPECTED, MemberPhase.LOST}
    for phase in MemberPhase:
        assert [phase.is_live, phase.has_ended, phase in between].count(True) == 1
    terminal = {RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED}
    assert {phase for phase in RunPhase if phase.is_terminal} == terminal


def test_only_completion_and_our_own_stop_are_no_failures() -> None:
    assert {c for c in Cause if not c.is_failure} == {Cause.COMPLETED, Cause.STOPPED}


def test_an_executor_is_named_with_its_spark_id_where_it_has_one() -> None:
    assert str(ExecutorInfo("node-a", "b", 1)) == "node-a"
    assert str(ExecutorInfo("node-a", "b", 1, executor_id="7")) == "node-a (executor 7)"
