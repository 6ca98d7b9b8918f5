"""When a run is complete, and who is stopped when (E6)."""

from __future__ import annotations

from itertools import chain

import pytest

from coordinator.core import completion, roster
from coordinator.core.model import Cause, MemberId, Role, Roles, RunSpec


@pytest.mark.parametrize(
    "roles, counting",
    [
        (Roles(chief=1, worker=2, ps=1), {Role.CHIEF}),
        (Roles(chief=1, worker=2), {Role.CHIEF, Role.WORKER}),
        (Roles(worker=2, ps=1), {Role.WORKER}),
        (Roles(chief=1, evaluator=1), {Role.CHIEF}),
    ],
)
def test_the_default_rule_follows_from_the_roles(roles: Roles, counting: set[Role]) -> None:
    assert completion.default_roles(roles) == counting
    assert completion.completion_roles(RunSpec(roles=roles)) == counting


def test_the_rule_of_a_run_replaces_the_default() -> None:
    spec = RunSpec(roles=Roles(chief=1, worker=1, ps=1), completion=frozenset({Role.WORKER}))
    assert completion.completion_roles(spec) == {Role.WORKER}


def causes(roles: Roles, **ended: Cause) -> dict[MemberId, Cause | None]:
    return {slot: ended.get(f"{slot.role.value}{slot.index}") for slot in roster.members(roles)}


def test_every_member_that_counts_must_have_completed() -> None:
    spec = RunSpec(roles=Roles(worker=2, ps=1))
    done = Cause.COMPLETED
    assert not completion.is_complete(spec, causes(spec.roles))
    assert not completion.is_complete(spec, causes(spec.roles, worker0=done, ps0=done))
    assert completion.is_complete(spec, causes(spec.roles, worker0=done, worker1=done))


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.COMPLETED])
def test_no_other_end_completes_a_run(cause: Cause) -> None:
    spec = RunSpec(roles=Roles(worker=2))
    ended = causes(spec.roles, worker0=Cause.COMPLETED, worker1=cause)
    assert not completion.is_complete(spec, ended)


def test_every_role_is_in_one_stop_stage_and_ps_in_the_last() -> None:
    """E6"""
    assert sorted(role.value for role in chain(*completion.STOP_STAGES)) == sorted(
        role.value for role in Role
    )
    assert completion.STOP_STAGES[-1] == {Role.PS}
