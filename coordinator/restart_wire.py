"""Restarts and stalls: domain <-> protobuf. A part of ``wire``."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from coordinator.core import model
from coordinator.core.errors import InvalidRun
from coordinator.core.policy import NO_RESTARTS, Action, RestartPolicy
from coordinator.core.stall_timeouts import Section, StallTimeouts
from coordinator.gpu_wire import clean, duration, seconds, timestamp, unix
from coordinator.v1 import model_pb2 as pb
from coordinator.v1 import stall_pb2 as stall_pb


def section_from_pb(number: int) -> Section:
    """What is not said, or not known here, is the taking of steps."""
    try:
        name = stall_pb.Section.Name(number)
    except ValueError:
        return Section.STEP
    return Section.__members__.get(name.removeprefix("SECTION_"), Section.STEP)


def policy_to_pb(policy: RestartPolicy) -> pb.RestartPolicy:
    return pb.RestartPolicy(
        max_restarts=policy.max_restarts,
        on=[
            pb.CauseAction(cause=f"CAUSE_{cause.name}", action=f"RESTART_ACTION_{action.name}")
            for cause, action in policy.on.items()
        ],
        backoff=duration(policy.backoff),
        max_backoff=duration(policy.max_backoff),
        counts_all=not policy.progress_refills,
        alone=policy.alone,
    )


def policy_from_pb(message: pb.RestartPolicy) -> RestartPolicy:
    """Raises InvalidRun."""
    on = {}
    for item in message.on:
        cause = model.Cause.__members__.get(_name(pb.Cause, item.cause, "CAUSE_"))
        action = Action.__members__.get(_name(pb.RestartAction, item.action, "RESTART_ACTION_"))
        if cause is None or action is None:
            raise InvalidRun(f"restart policy: unknown cause {item.cause} or action {item.action}")
        on[cause] = action
    has_backoff, has_longest = message.HasField("backoff"), message.HasField("max_backoff")
    return RestartPolicy(
        max_restarts=message.max_restarts,
        on=on,
        backoff=seconds(message.backoff) if has_backoff else NO_RESTARTS.backoff,
        max_backoff=seconds(message.max_backoff) if has_longest else NO_RESTARTS.max_backoff,
        progress_refills=not message.counts_all,
        alone=message.alone,
    )


def stall_to_pb(timeouts: StallTimeouts) -> stall_pb.StallTimeouts:
    return stall_pb.StallTimeouts(
        start=_optional(timeouts.start),
        step=_optional(timeouts.step),
        checkpoint=_optional(timeouts.checkpoint),
        evaluation=_optional(timeouts.evaluation),
    )


def stall_from_pb(message: stall_pb.StallTimeouts) -> StallTimeouts:
    """What is not set has no end. Raises InvalidRun."""
    return StallTimeouts(
        start=seconds(message.start) if message.HasField("start") else None,
        step=seconds(message.step) if message.HasField("step") else None,
        checkpoint=seconds(message.checkpoint) if message.HasField("checkpoint") else None,
        evaluation=seconds(message.evaluation) if message.HasField("evaluation") else None,
    )


def restart_to_pb(restart: model.Restart, wall_offset: float) -> pb.Restart:
    """``wall_offset``: what to add to the machine's clock to have Unix time."""
    member = restart.member
    return pb.Restart(
        decide_time=timestamp(restart.at + wall_offset),
        generation=restart.generation,
        cause=f"CAUSE_{restart.cause.name}",
        summary=clean(restart.summary),
        member=(
            None
            if member is None
            else pb.MemberId(role=f"ROLE_{member.role.name}", index=member.index)
        ),
        hostname=restart.host,
        step=restart.step,
        alone=restart.alone,
    )


def restart_from_pb(message: pb.Restart) -> model.Restart:
    """Its time is Unix time."""
    cause = model.Cause.__members__.get(_name(pb.Cause, message.cause, "CAUSE_"))
    role = model.Role.__members__.get(_name(pb.Role, message.member.role, "ROLE_"))
    return model.Restart(
        at=unix(message.decide_time),
        generation=message.generation,
        cause=cause or model.Cause.EXIT_CODE,
        summary=message.summary,
        member=None if role is None else model.MemberId(role, message.member.index),
        host=message.hostname,
        step=message.step,
        alone=message.alone,
    )


def _name(kind: object, number: int, prefix: str) -> str:
    try:
        name: str = kind.Name(number)  # type: ignore[attr-defined]
    except ValueError:
        return ""
    return name.removeprefix(prefix)


def _optional(time: float | None) -> Duration | None:
    return None if time is None else duration(time)
