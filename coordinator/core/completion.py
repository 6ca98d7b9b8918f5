"""When a run is complete, and in which order its members are stopped then (E6)."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.core.model import Cause, MemberId, Role, Roles, RunSpec

STOP_STAGES: tuple[frozenset[Role], ...] = (
    frozenset({Role.CHIEF, Role.WORKER}),
    frozenset({Role.EVALUATOR}),
    frozenset({Role.PS}),
)
"""A later stage is told to stop when the earlier ones have ended: whoever saves a model needs
the parameter servers until it has, and an evaluator the last checkpoint."""


def default_roles(roles: Roles) -> frozenset[Role]:
    """Whose end completes a run: with a chief and parameter servers the chief's alone (the
    others only serve it), otherwise that of the chief and all workers."""
    if roles.chief and roles.ps:
        return frozenset({Role.CHIEF})
    return frozenset(role for role in (Role.CHIEF, Role.WORKER) if roles.count(role))


def completion_roles(spec: RunSpec) -> frozenset[Role]:
    """The rule of this run: its own, or the default one."""
    return spec.completion or default_roles(spec.roles)


def is_complete(spec: RunSpec, causes: Mapping[MemberId, Cause | None]) -> bool:
    """True when every member that counts has finished well. ``None``: it has not ended."""
    counting = completion_roles(spec)
    return all(
        cause is Cause.COMPLETED for member, cause in causes.items() if member.role in counting
    )
