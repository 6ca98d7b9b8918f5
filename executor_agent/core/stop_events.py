"""The vocabulary of a member's end: what can happen to it, and what the sentinel can do about it.

Owns: one class per event and per effect of `stop_sequence`, and the reading of the agent's commands
into events. Must not know what follows from them: that is decided in `stop_sequence`.
"""

from __future__ import annotations

import json
import math
from typing import TypeAlias

from executor_agent.core.record import Record
from executor_agent.core.supervision import Proof


# Events.
class AgentStarted(Record):
    """The agent runs and has to be heard out at the end."""


class MemberStarted(Record):
    """The member runs and is worth a grace."""


class StartFailed(Record):
    """Nothing, or only the agent, could be started."""

    why: str


class MemberExited(Record):
    """The member's process was reaped. With `let_go` the task had closed its pipes before that:
    the kernel's dead-man signal may have been quicker than we are. `how`: for people."""

    let_go: bool = False
    how: str = ""


class AnchorDied(Record):
    """A watched process is gone, or is no longer the one that was meant. `seen_by`: for people."""

    name: str
    seen_by: str = "pidfd"


class LifelineClosed(Record):
    """The task died or returned; which of the two the pipe cannot say. `seen_by`: for people."""

    seen_by: str = "its lifeline"


class HandOverAsked(Record):
    """The task wants to return and leave the member to the executor."""


class AgentExited(Record):
    """The agent's process was reaped."""

    how: str


class ControlClosed(Record):
    """The agent's end of the control socket is closed; usually its exit follows at once."""


class TerminateAsked(Record):
    """SIGTERM came in."""


class StopAsked(Record):
    """The agent wants the member gone; grace None: the configured one."""

    grace: float | None
    reason: str


class AgentDone(Record):
    """The agent has delivered the exit and leaves."""


class Scanned(Record):
    """A kill round is over. `remaining` processes were seen; `childless`: waitpid said ECHILD."""

    remaining: int
    childless: bool


class Tick(Record):
    """Time has passed, or a child has died."""


Event: TypeAlias = (
    AgentStarted
    | MemberStarted
    | StartFailed
    | MemberExited
    | AnchorDied
    | LifelineClosed
    | HandOverAsked
    | AgentExited
    | ControlClosed
    | TerminateAsked
    | StopAsked
    | AgentDone
    | Scanned
    | Tick
)


# Effects.
class AnnounceStop(Record):
    """Tell the agent and the member."""

    reason: str
    grace: float


class TerminateMember(Record):
    """SIGTERM to the member's group."""


class KillRound(Record):
    """Scan the descendants, SIGKILL them, reap, and answer with Scanned. The agent and what it
    started are spared unless `agent_too`."""

    agent_too: bool


class ReportExit(Record):
    """Send the exit facts to the agent."""

    proof: Proof


class TakeOver(Record):
    """Watch the task and its daemon no more, and tell the task. LifelineClosed when it cannot be
    told: then it died asking."""


class Conclude(Record):
    """Write the tombstone; nothing more is to be done."""

    proof: Proof


Effect: TypeAlias = AnnounceStop | TerminateMember | KillRound | ReportExit | TakeOver | Conclude


def parse_command(datagram: bytes) -> StopAsked | AgentDone:
    """Read what the agent says on the control socket; ValueError for what is not a command.

    A stop with an unusable grace is still a stop: it falls back to the configured grace.
    """
    raw = json.loads(datagram)
    command = raw.get("command") if isinstance(raw, dict) else None
    if command == "done":
        return AgentDone()
    if command == "stop":
        reason = str(raw.get("reason") or "agent asked to stop")
        return StopAsked(grace=_usable_grace(raw.get("grace")), reason=reason)
    raise ValueError(f"not a command: {raw!r}")


def _usable_grace(grace: object) -> float | None:
    if isinstance(grace, int | float) and math.isfinite(grace):
        return max(0.0, float(grace))
    return None
