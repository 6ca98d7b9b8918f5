"""The decisions of the sentinel: when a stop begins, how it escalates, when it is over.

Owns: the phases of a member's end and what moves them. Must not know processes, descriptors or the
clock: events come in with the time, effects go out, the sentinel interprets them.

    WATCHING --any reason--> GRACE --deadline--> TERMINATING --deadline--> KILLING
    KILLING --tree gone, or out of time--> REPORTING --agent gone or out of time--> CLOSING
    CLOSING --no child left, or out of time--> ENDED

Rules: there is one path for every reason. A stop under way can only become shorter. With a grace
of 0 the SIGTERM is left out: TensorFlow takes 0.4 s to die of it and nothing is gained. A member
that has exited needs no grace, its descendants get none. Whatever happens, a phase other than
WATCHING has a deadline.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from executor_agent.core.stop_events import (
    AgentDone,
    AgentExited,
    AgentStarted,
    AnchorDied,
    AnnounceStop,
    Conclude,
    ControlClosed,
    Effect,
    Event,
    HandOverAsked,
    KillRound,
    LifelineClosed,
    MemberExited,
    MemberStarted,
    ReportExit,
    Scanned,
    StartFailed,
    StopAsked,
    TakeOver,
    TerminateAsked,
    TerminateMember,
    Tick,
)
from executor_agent.core.supervision import (
    AGENT_SILENT,
    LIFELINE_CLOSED,
    MEMBER_EXITED,
    TERMINATED,
    Proof,
    anchor_died,
)

FIRST_ROUND: Final = 0.001  # between two kill rounds; doubles, because a big process takes long to
LAST_ROUND: Final = 0.05  # free its memory, up to this
DEPARTURE_TIMEOUT: Final = 1.0  # for an agent that has said goodbye, or closed its socket, to exit


class Phase(Enum):
    """Where the member's end stands."""

    WATCHING = "watching"
    GRACE = "grace"
    TERMINATING = "terminating"
    KILLING = "killing"
    REPORTING = "reporting"
    CLOSING = "closing"
    ENDED = "ended"


class StopSequence:
    """One member's end. Time only ever comes in as an argument, in seconds of one clock."""

    def __init__(
        self, *, grace: float, term_timeout: float, kill_timeout: float, report_timeout: float
    ) -> None:
        self._grace = grace
        self._term_timeout = term_timeout
        self._kill_timeout = kill_timeout
        self._report_timeout = report_timeout
        self._phase = Phase.WATCHING
        self._member_runs = False
        self._agent_runs = False
        self._deadline: float | None = None  # of the phase; in WATCHING, of an agent gone silent
        self._round_at = math.inf  # when the next kill round is due; finite only while killing
        self._round_interval = FIRST_ROUND
        self._clean_rounds = 0
        self._proof: Proof = "none"
        self._reason: str | None = None
        self._began_at = 0.0
        self._swept_at = 0.0

    @property
    def phase(self) -> Phase:
        """The phase we are in."""
        return self._phase

    @property
    def reason(self) -> str:
        """Why the stop began; empty before it has."""
        return self._reason or ""

    @property
    def stop_seconds(self) -> float:
        """From the reason to the tree being gone, once it is."""
        return max(0.0, self._swept_at - self._began_at)

    def next_deadline(self) -> float | None:
        """When `handle(Tick(), ...)` is due even if nothing happens; None: nothing is due."""
        if self._deadline is None:
            return None
        return min(self._deadline, self._round_at)

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """Take one event in, and return what is to be done, in this order."""
        if self._phase is Phase.ENDED:
            return ()
        match event:
            case AgentStarted():
                self._agent_runs = True
                return ()
            case MemberStarted():
                self._member_runs = True
                return ()
            case StartFailed(why):
                return self._stop(f"cannot start: {why}", 0.0, now)
            case MemberExited(let_go=let_go):
                self._member_runs = False
                return self._stop(LIFELINE_CLOSED if let_go else MEMBER_EXITED, 0.0, now)
            case AnchorDied(name=name):
                return self._stop(anchor_died(name), self._grace, now)
            case LifelineClosed():
                return self._stop(LIFELINE_CLOSED, self._grace, now)
            case HandOverAsked():
                # A stop under way is the task's to wait for: without an answer it does.
                return (TakeOver(),) if self._phase is Phase.WATCHING else ()
            case TerminateAsked():
                return self._stop(TERMINATED, self._grace, now)
            case StopAsked(grace, reason):
                return self._stop(reason, self._grace if grace is None else grace, now)
            case AgentExited(how):
                return self._lose_agent(f"agent {how}", now)
            case ControlClosed():
                return self._expect_departure(now)
            case AgentDone():
                return self._expect_departure(now) if self._phase is Phase.REPORTING else ()
            case Scanned(remaining, childless):
                return self._judge_round(remaining, childless, now)
            case Tick():
                return self._tick(now)

    def _stop(self, reason: str, grace: float, now: float) -> tuple[Effect, ...]:
        if self._reason is None:
            self._reason, self._began_at = reason, now
            grace = grace if self._member_runs else 0.0
            self._phase, self._deadline = Phase.GRACE, now + grace
            announce = AnnounceStop(reason, grace)
            # Nobody has to prepare for a kill: it comes first.
            return (*self._kill(now), announce) if grace == 0 else (announce,)
        if self._reason == LIFELINE_CLOSED and reason == anchor_died("task"):
            self._reason = reason  # the same end, seen better: the pipe closes before the pid goes
        if self._phase not in (Phase.GRACE, Phase.TERMINATING) or self._deadline is None:
            return ()
        if grace == 0:
            return self._kill(now)
        if self._phase is Phase.GRACE:
            self._deadline = min(self._deadline, now + grace)
        return ()

    def _lose_agent(self, reason: str, now: float) -> tuple[Effect, ...]:
        self._agent_runs = False
        if self._phase is Phase.REPORTING:
            return self._close(now)
        if self._reason is None:
            return self._stop(reason, self._grace, now)
        return ()

    def _expect_departure(self, now: float) -> tuple[Effect, ...]:
        # Not a reason yet: the exit that follows says more than a closed socket does.
        if self._phase in (Phase.WATCHING, Phase.REPORTING):
            by = now + DEPARTURE_TIMEOUT
            self._deadline = by if self._deadline is None else min(self._deadline, by)
        return ()

    def _tick(self, now: float) -> tuple[Effect, ...]:
        if self._phase in (Phase.KILLING, Phase.CLOSING):
            # Also early, woken by a death: the sooner the next round, the sooner it is proven.
            return (KillRound(agent_too=self._phase is Phase.CLOSING),)
        if self._deadline is None or now < self._deadline:
            return ()
        match self._phase:
            case Phase.WATCHING:
                return self._stop(AGENT_SILENT, self._grace, now)
            case Phase.GRACE:
                self._phase, self._deadline = Phase.TERMINATING, now + self._term_timeout
                return (TerminateMember(),)
            case Phase.TERMINATING:
                return self._kill(now)
            case _:
                return self._close(now)

    def _kill(self, now: float) -> tuple[Effect, ...]:
        self._phase, self._deadline = Phase.KILLING, now + self._kill_timeout
        return self._first_round(now)

    def _close(self, now: float) -> tuple[Effect, ...]:
        # What SIGKILL has not ended in kill_timeout is not given as long again.
        patience = self._kill_timeout if self._proof == "sweep" else min(1.0, self._kill_timeout)
        self._phase, self._deadline = Phase.CLOSING, now + patience
        return self._first_round(now)

    def _first_round(self, now: float) -> tuple[Effect, ...]:
        self._round_at, self._round_interval, self._clean_rounds = now, FIRST_ROUND, 0
        return (KillRound(agent_too=self._phase is Phase.CLOSING),)

    def _judge_round(self, remaining: int, childless: bool, now: float) -> tuple[Effect, ...]:
        if self._phase not in (Phase.KILLING, Phase.CLOSING) or self._deadline is None:
            return ()
        self._clean_rounds = 0 if remaining else self._clean_rounds + 1
        if self._phase is Phase.CLOSING:
            if childless:
                return self._conclude("kernel")
            if now >= self._deadline:
                return self._conclude(self._proof)
        elif childless or self._clean_rounds == 2:
            return self._report("sweep", now)
        elif self._clean_rounds == 1:
            # One reading of the children files may miss a process that changes its parent.
            return (KillRound(agent_too=False),)
        elif now >= self._deadline:
            return self._report("none", now)
        self._round_at = now + self._round_interval
        self._round_interval = min(2 * self._round_interval, LAST_ROUND)
        return ()

    def _report(self, proof: Proof, now: float) -> tuple[Effect, ...]:
        self._proof, self._swept_at, self._round_at = proof, now, math.inf
        if not self._agent_runs:
            return self._close(now)
        self._phase, self._deadline = Phase.REPORTING, now + self._report_timeout
        return (ReportExit(proof),)

    def _conclude(self, proof: Proof) -> tuple[Effect, ...]:
        self._phase, self._deadline, self._round_at = Phase.ENDED, None, math.inf
        return (Conclude(proof),)
