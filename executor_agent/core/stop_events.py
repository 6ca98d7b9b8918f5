"""The vocabulary of a member's end: what can happen to it, and what the sentinel can do about it.

Owns: one class per event and per effect of `stop_sequence`, and the reading of the agent's commands
into events. Must not know what follows from them: that is decided in `stop_sequence`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TypeAlias

from executor_agent.core.supervision import Proof


# Events.
@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent runs and has to be heard out at the end."""


@dataclass(frozen=True, slots=True)
class MemberStarted:
    """The member runs and is worth a grace."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Nothing, or only the agent, could be started."""

    why: str


@dataclass(frozen=True, slots=True)
class MemberExited:
    """The member's process was reaped. With `let_go` the task had closed its pipes before that:
    the kernel's dead-man signal may have been quicker than we are. `how`: for people."""

    let_go: bool = False
    how: str = ""


@dataclass(frozen=True, slots=True)
class AnchorDied:
    """A watched process is gone, or is no longer the one that was meant. `seen_by`: for people."""

    name: str
    seen_by: str = "pidfd"


@dataclass(frozen=True, slots=True)
class LifelineClosed:
    """The task died or returned; which of the two the pipe cannot say. `seen_by`: for people."""

    seen_by: str = "its lifeline"


@dataclass(frozen=True, slots=True)
class HandOverAsked:
    """The task wants to return and leave the member to the executor."""


@dataclass(frozen=True, slots=True)
class AgentExited:
    """The agent's process was reaped."""

    how: str


@dataclass(frozen=True, slots=True)
class ControlClosed:
    """The agent's end of the control socket is closed; usually its exit follows at once."""


@dataclass(frozen=True, slots=True)
class TerminateAsked:
    """SIGTERM came in."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The agent wants the member gone; grace None: the configured one."""

    grace: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class AgentDone:
    """The agent has delivered the exit and leaves."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """A kill round is over. `remaining` processes were seen; `childless`: waitpid said ECHILD."""

    remaining: int
    childless: bool


@dataclass(frozen=True, slots=True)
class Tick:
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
@dataclass(frozen=True, slots=True)
class AnnounceStop:
    """Tell the agent and the member."""

    reason: str
    grace: float


@dataclass(frozen=True, slots=True)
class TerminateMember:
    """SIGTERM to the member's group."""


@dataclass(frozen=True, slots=True)
class KillRound:
    """Scan the descendants, SIGKILL them, reap, and answer with Scanned. The agent and what it
    started are spared unless `agent_too`."""

    agent_too: bool


@dataclass(frozen=True, slots=True)
class ReportExit:
    """Send the exit facts to the agent."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Watch the task and its daemon no more, and tell the task. LifelineClosed when it cannot be
    told: then it died asking."""


@dataclass(frozen=True, slots=True)
class Conclude:
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
