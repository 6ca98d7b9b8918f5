"""From a run's state to sentences: what it waits for, and why (R1).

The same text feeds the exception, the progress line, the command line and the logs.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.model import MemberPhase, MemberView, RunPhase, RunView, Slots

_NAMED = 5
"""So many members are named with a reason; of more only the number is told."""


_STARTING = 20.0
"""Seconds that a healthy agent may need to connect on a busy machine: an interpreter, gRPC, and
before that, Spark's own Python worker."""


def headline(run: RunView, now: float) -> str:
    """One line for a progress display."""
    total = len(run.members)
    if run.phase is RunPhase.FORMING:
        done = sum(member.phase is MemberPhase.READY for member in run.members)
        text = f"{done} of {total} members ready"
    elif run.phase is RunPhase.RUNNING:
        done = sum(member.phase is MemberPhase.RUNNING for member in run.members)
        text = f"{done} of {total} members running"
        step = max((member.step for member in run.members), default=0)
        if step:
            text += f", step {step}"
    elif run.phase is RunPhase.STOPPING:
        done = sum(member.phase.has_ended for member in run.members)
        text = f"stopping, {done} of {total} members gone"
    else:
        return str(run.phase.value)
    waiting = run.diagnosis or explain(run, now)
    return f"{text}; waiting for {'; '.join(waiting)}" if waiting else text


def timed_out(run: RunView, now: float) -> str:
    """Why the run fails whose members were not there in time."""
    waiting = "; ".join(explain(run, now))
    timeout = run.spec.reservation_timeout
    return f"the members were not all running within {timeout:g} s. Waiting for {waiting}"


def explain(run: RunView, now: float) -> tuple[str, ...]:
    """What the run waits for: "worker:1: task not scheduled, 4 of 4 slots busy"."""
    reasons: dict[str, list[str]] = {}
    for member in run.members:
        reason = _reason(run, member, now)
        if reason:
            reasons.setdefault(reason, []).append(str(member.id))
    return tuple(f"{_names(names)}: {reason}" for reason, names in reasons.items())


def _names(names: Iterable[str]) -> str:
    all_names = list(names)
    shown = ", ".join(all_names[:_NAMED])
    more = len(all_names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _reason(run: RunView, member: MemberView, now: float) -> str:
    if run.phase is RunPhase.FORMING:
        return _while_forming(run, member, now)
    if run.phase is RunPhase.RUNNING and member.phase is MemberPhase.STARTING:
        return f"has the cluster spec, main_fun not entered yet, on {member.executor}"
    if run.phase is RunPhase.STOPPING:
        if member.phase is MemberPhase.LOST:
            return f"not heard of since it was lost, on {member.executor}; waiting for its fence"
        if member.phase.is_live:
            return f"still {member.phase.value}, on {member.executor}"
    return ""


def _while_forming(run: RunView, member: MemberView, now: float) -> str:
    match member.phase:
        case MemberPhase.EXPECTED:
            return _not_reserved(member, run.slots, now)
        case MemberPhase.RESERVED:
            return f"connected, its process is still importing, on {member.executor}"
        case MemberPhase.LOST:
            return f"connected, then not heard of any more, on {member.executor}"
        case MemberPhase.FENCED:
            return f"was lost on {member.executor}; no other task has taken its place"
        case MemberPhase.READY if member.gpu_obstacles:
            return f"ready, waits for a GPU: {'; '.join(member.gpu_obstacles[:_NAMED])}"
        case _:
            return ""


def _not_reserved(member: MemberView, slots: Slots, now: float) -> str:
    last = ""
    if member.exit is not None:
        why = member.exit.reason or member.exit.message
        last = f" (its last attempt ended: {member.exit.cause.value}{why and f', {why}'})"
    if member.task.failed:
        return f"its Spark task failed: {member.task.message}{last}"
    if member.task.running and now - member.phase_at < _STARTING:
        return f"its Spark task has started, its agent not yet{last}"
    if member.task.running:
        return (
            "its Spark task runs but has not connected: is the coordinator's port reachable from "
            f"the executors?{last}"
        )
    why = f": {member.task.message}" if member.task.message else _slots(slots)
    return f"task not scheduled{why}{last}"


def _slots(slots: Slots) -> str:
    if slots.total <= 0:
        return ""
    if slots.busy < 0:
        return f", the application has {slots.total} slots"
    return f", {slots.busy} of {slots.total} slots busy"
