"""From a run's state to sentences: what it waits for, and why (R1).

The same text feeds the exception, the progress line, the command line and the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.core.model import MemberPhase, MemberView, Restart, RunPhase, RunView, Slots
from coordinator.core.restarts import avoided_hosts

TOTAL_STEPS = "total_steps"
"""The metric by which a member says how many steps its training will have."""

_NAMED = 5
"""So many members are named with a reason; of more only the number is told."""


_WHY = 120  # characters of a restart's cause: it shares a line

_STARTING = 20.0
"""Seconds that a healthy agent may need to connect on a busy machine: an interpreter, gRPC, and
before that, Spark's own Python worker."""


def headline(run: RunView, now: float) -> str:
    """One line for a progress display."""
    total = len(run.members)
    if run.phase is RunPhase.FORMING:
        done = sum(member.phase is MemberPhase.READY for member in run.members)
        text = f"{done} of {total} members ready"
        if run.restart_count:
            text = f"restart {run.restart_count}: {_why(run)}{text}"
    elif run.phase is RunPhase.RUNNING:
        done = sum(member.phase is MemberPhase.RUNNING for member in run.members)
        text = f"{done} of {total} members running"
        step = max((member.step for member in run.members), default=0)
        if step:
            text += f", step {step}"
        text += _fetching(run)
    elif run.phase is RunPhase.RESTARTING:
        done = sum(member.phase.has_ended for member in run.members)
        text = f"restarting ({run.stop_reason}), {done} of {total} members gone"
    elif run.phase is RunPhase.STOPPING:
        done = sum(member.phase.has_ended for member in run.members)
        text = f"stopping, {done} of {total} members gone"
    else:
        return str(run.phase.value)
    waiting = run.diagnosis or explain(run, now)
    return f"{text}; waiting for {'; '.join(waiting)}" if waiting else text


def _why(run: RunView) -> str:
    """What the latest restart was for, in a few words."""
    if not run.restarts:
        return ""
    summary = " ".join(run.restarts[-1].summary.split())
    return f"{summary[:_WHY]}{'...' * (len(summary) > _WHY)}; "


REJOINING = (MemberPhase.EXPECTED, MemberPhase.RESERVED, MemberPhase.READY)
"""Of a member of a gang at work: it starts again alone."""


_FETCHING = 3
"""So many of the members that fetch files are named in a line."""


def _fetching(run: RunView) -> str:
    """As in ", worker:1 fetched 120 of 300 MB": those that are not done, the slowest first."""
    left = {}
    for member in run.members:
        total = member.metrics.get("fetch/total_bytes", 0.0)
        come = member.metrics.get("fetch/bytes", 0.0)
        if member.phase is MemberPhase.RUNNING and come < total:
            left[f"{member.id} fetched {come / 1e6:.0f} of {total / 1e6:.0f} MB"] = come / total
    named = sorted(left, key=lambda text: left[text])[:_FETCHING]
    more = f" and {len(left) - len(named)} more" if len(left) > len(named) else ""
    return f", {', '.join(named)}{more}" if named else ""


def share_done(run: RunView) -> float | None:
    """How much of what the run is at is done, from 0 to 1: for a bar. None: nobody can know."""
    if run.phase is RunPhase.FORMING:
        return _share(run, lambda member: member.phase is MemberPhase.READY)
    if run.phase in (RunPhase.RESTARTING, RunPhase.STOPPING):
        return _share(run, lambda member: member.phase.has_ended)
    if run.phase is not RunPhase.RUNNING:
        return None
    steps = [
        min(member.step / total, 1.0)
        for member in run.members
        if (total := member.metrics.get(TOTAL_STEPS, 0.0)) > 0
    ]
    return max(steps, default=None)


def _share(run: RunView, is_done: Callable[[MemberView], bool]) -> float:
    return sum(map(is_done, run.members)) / max(len(run.members), 1)


def history(run: RunView) -> tuple[str, ...]:
    """The restarts that are still known, a line each, the latest last: "restart 2 (generation 1,
    step 40): worker:1 on host-b was killed by signal 9"."""
    first = run.restart_count - len(run.restarts) + 1
    return tuple(_restart(number, each) for number, each in enumerate(run.restarts, first))


def _restart(number: int, restart: Restart) -> str:
    alone = f"; {restart.member} alone" if restart.alone and restart.member else ""
    why = " ".join(restart.summary.split())
    return f"restart {number} (generation {restart.generation}, step {restart.step}{alone}): {why}"


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
    found = tuple(f"{_names(names)}: {reason}" for reason, names in reasons.items())
    if run.restart_at is None or found:
        return found
    return (f"the end of a pause of {max(0.0, run.restart_at - now):.0f} s before the restart",)


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
    if run.phase is RunPhase.RUNNING and member.phase in REJOINING:
        return f"starts again alone; {_while_forming(run, member, now) or 'ready'}"
    if run.phase in (RunPhase.STOPPING, RunPhase.RESTARTING):
        if member.phase is MemberPhase.LOST:
            return f"not heard of since it was lost, on {member.executor}; waiting for its fence"
        if member.phase.is_live:
            return f"still {member.phase.value}, on {member.executor}"
    return ""


def _while_forming(run: RunView, member: MemberView, now: float) -> str:
    match member.phase:
        case MemberPhase.EXPECTED:
            avoided = _avoided(run, member, now)
            return avoided or _not_reserved(member, run.slots, now, run.restart_count)
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


def _avoided(run: RunView, member: MemberView, now: float) -> str:
    """Its task is there, and stands by on a host that failed, while others may still come."""
    if run.phase is not RunPhase.FORMING or member.executor is None:
        return ""
    here, avoided = member.executor.hostname, avoided_hosts(run.restarts, now)
    known = {each.executor.hostname for each in run.members if each.executor is not None}
    if here not in avoided or not known - avoided:
        return ""
    return f"{here}, where it was, has failed repeatedly: another host is preferred for a while"


def _not_reserved(member: MemberView, slots: Slots, now: float, restarts: int) -> str:
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
    if restarts and now - member.phase_at < _STARTING:  # nobody lacks a slot yet
        return f"to be replaced, in place or by a new Spark job{last}"
    why = f": {member.task.message}" if member.task.message else _slots(slots)
    return f"task not scheduled{why}{last}"


def _slots(slots: Slots) -> str:
    if slots.total <= 0:
        return ""
    if slots.busy < 0:
        return f", the application has {slots.total} slots"
    return f", {slots.busy} of {slots.total} slots busy"
