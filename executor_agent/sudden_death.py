"""What the task does when its sentinel ends without a tombstone: it was killed, or it hung.

Owns: the tombstone that says no more than the sweep has proven. The kernel has killed the member's
group by then (PDEATHSIG, dead-man pipe); left are descendants in sessions of their own, and the
agent, which sweeps as well, reports to the coordinator and leaves. Must not know pipes or how the
sentinel is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from executor_agent import claims
from executor_agent.core.supervision import MEMBER_LOG, Tombstone
from executor_agent.sweep import agent_of, conclude, sweep, trace_of, unseen_end
from executor_agent.traces import Trace


@dataclass(frozen=True, slots=True)
class SuddenDeath:
    """A sentinel's end without a tombstone."""

    member: str
    run_id: str
    incarnation: str
    marker: str
    directory: Path
    claim: Path
    exit_code: int | None  # as subprocess has it; None: it was detached, so nobody was told
    hung: bool  # it did not end in time, and was killed by its task


def sweep_after_sudden_death(
    death: SuddenDeath, *, agent_timeout: float, kill_timeout: float, by_agent: bool = False
) -> Tombstone:
    """Kill what the sentinel would have killed, and write the tombstone in its stead.

    On return no process of the member's is left, or the tombstone names it. Takes two searches when
    there is nothing left to do, at most both timeouts. ``by_agent``: it is left itself as long as
    it can ask, so the claim stays; it has to take it away last of all.
    """
    claim = claims.read(death.claim)
    if claim is None:  # it died before it had started anybody, or the claim was tidied away
        trace = Trace(death.marker, str(death.directory / MEMBER_LOG))
    else:
        trace = trace_of(claim)
    swept = sweep(
        trace,
        agent_of(claim) if claim is not None else None,
        agent_timeout=agent_timeout,
        kill_timeout=kill_timeout,
    )
    who = (death.member, death.run_id, death.incarnation)
    tombstone = unseen_end(who, claim, _describe(death), swept)
    conclude(death.directory, None if by_agent else death.claim, tombstone)
    return tombstone


def _describe(death: SuddenDeath) -> str:
    code = death.exit_code
    if death.hung:
        return "sentinel did not end in time and was killed"
    if code is None:
        return "sentinel ended without a word, see the executor's stderr"
    if code == 2:
        return "sentinel refused its configuration, see the executor's stderr"
    return f"sentinel was killed by signal {-code}" if code < 0 else f"sentinel failed ({code})"
