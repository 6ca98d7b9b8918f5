"""What may follow what, as tables; the diagrams in ARCHITECTURE.md are generated from them.

A transition that is not here is a bug of ours, never of a peer: peers' events are checked before
they are applied.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from coordinator.core.model import MemberPhase, RunPhase


class RunTrigger(enum.Enum):
    """What moves a run."""

    GANG_READY = "every member is ready"
    FAILED = "a member failed, or the deadline passed"
    RECOVER = "a member failed, and may start again"
    REFORM = "all have ended; the next generation forms"
    GIVE_UP = "no restart for this failure"
    COMPLETED = "the members that count have finished"
    STOP_ASKED = "stop asked, or owner gone"
    ENDED_WELL = "all have ended, after completion"
    ENDED_FAILED = "all have ended, after a failure"
    ENDED_CANCELLED = "all have ended, after a stop"


class MemberTrigger(enum.Enum):
    """What moves a member."""

    RESERVE = "an agent reserves the slot"
    READY = "its process has imported"
    START = "the cluster spec is sent"
    ENTER = "main_fun is entered"
    EXIT = "its process ended by itself"
    STOP = "its process was stopped, or never was"
    LOSE = "silence for the liveness time"
    FENCE = "silence for the fence time"
    RETURN_RESERVED = "heard of again, not ready"
    RETURN_READY = "heard of again, ready"
    VACATE = "Spark took its task; another may come"
    RENEW = "it is to start again"


_R, _RT = RunPhase, RunTrigger
RUN_TRANSITIONS: Mapping[tuple[RunPhase, RunTrigger], RunPhase] = {
    (_R.FORMING, _RT.GANG_READY): _R.RUNNING,
    (_R.FORMING, _RT.FAILED): _R.STOPPING,
    (_R.FORMING, _RT.STOP_ASKED): _R.STOPPING,
    (_R.RUNNING, _RT.COMPLETED): _R.STOPPING,
    (_R.RUNNING, _RT.FAILED): _R.STOPPING,
    (_R.RUNNING, _RT.STOP_ASKED): _R.STOPPING,
    (_R.RUNNING, _RT.RECOVER): _R.RESTARTING,
    (_R.RESTARTING, _RT.REFORM): _R.FORMING,
    (_R.RESTARTING, _RT.GIVE_UP): _R.STOPPING,
    (_R.RESTARTING, _RT.STOP_ASKED): _R.STOPPING,
    (_R.STOPPING, _RT.ENDED_WELL): _R.SUCCEEDED,
    (_R.STOPPING, _RT.ENDED_FAILED): _R.FAILED,
    (_R.STOPPING, _RT.ENDED_CANCELLED): _R.CANCELLED,
}

_M, _MT = MemberPhase, MemberTrigger
MEMBER_TRANSITIONS: Mapping[tuple[MemberPhase, MemberTrigger], MemberPhase] = {
    (_M.EXPECTED, _MT.RESERVE): _M.RESERVED,
    (_M.EXPECTED, _MT.STOP): _M.STOPPED,
    (_M.RESERVED, _MT.READY): _M.READY,
    (_M.RESERVED, _MT.EXIT): _M.EXITED,
    (_M.RESERVED, _MT.STOP): _M.STOPPED,
    (_M.RESERVED, _MT.LOSE): _M.LOST,
    (_M.RESERVED, _MT.VACATE): _M.EXPECTED,
    (_M.READY, _MT.START): _M.STARTING,
    (_M.READY, _MT.EXIT): _M.EXITED,
    (_M.READY, _MT.STOP): _M.STOPPED,
    (_M.READY, _MT.LOSE): _M.LOST,
    (_M.READY, _MT.VACATE): _M.EXPECTED,
    (_M.STARTING, _MT.ENTER): _M.RUNNING,
    (_M.STARTING, _MT.EXIT): _M.EXITED,
    (_M.STARTING, _MT.STOP): _M.STOPPED,
    (_M.STARTING, _MT.LOSE): _M.LOST,
    (_M.RUNNING, _MT.EXIT): _M.EXITED,
    (_M.RUNNING, _MT.STOP): _M.STOPPED,
    (_M.RUNNING, _MT.LOSE): _M.LOST,
    (_M.LOST, _MT.RETURN_RESERVED): _M.RESERVED,
    (_M.LOST, _MT.RETURN_READY): _M.READY,
    (_M.LOST, _MT.EXIT): _M.EXITED,
    (_M.LOST, _MT.STOP): _M.STOPPED,
    (_M.LOST, _MT.VACATE): _M.EXPECTED,
    (_M.LOST, _MT.FENCE): _M.FENCED,
    (_M.FENCED, _MT.RESERVE): _M.RESERVED,
    (_M.EXITED, _MT.RENEW): _M.EXPECTED,
    (_M.STOPPED, _MT.RENEW): _M.EXPECTED,
    (_M.FENCED, _MT.RENEW): _M.EXPECTED,
}


def next_run_phase(phase: RunPhase, trigger: RunTrigger) -> RunPhase:
    """The phase after ``trigger``. Raises AssertionError: the machine never asks for another."""
    target = RUN_TRANSITIONS.get((phase, trigger))
    if target is None:
        raise AssertionError(f"a {phase.value} run cannot follow {trigger.name}")
    return target


def next_member_phase(phase: MemberPhase, trigger: MemberTrigger) -> MemberPhase:
    """The phase after ``trigger``. Raises AssertionError: the machine never asks for another."""
    target = MEMBER_TRANSITIONS.get((phase, trigger))
    if target is None:
        raise AssertionError(f"a member that is {phase.value} cannot follow {trigger.name}")
    return target


def mermaid(table: Mapping[tuple[enum.Enum, enum.Enum], enum.Enum]) -> str:
    """A table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    states = list(dict.fromkeys([source for source, _ in table]))
    lines.append(f"    [*] --> {states[0].name}")
    for (source, trigger), target in table.items():
        lines.append(f"    {source.name} --> {target.name}: {trigger.value}")
    for state in dict.fromkeys(table.values()):
        if state not in states:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines)
