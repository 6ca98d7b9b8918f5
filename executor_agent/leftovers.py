"""What earlier members have left on this host: found, and on request ended.

Owns: the walk over all claims of our user, and the proof that it leaves. Two callers: every agent,
before it reserves its slot, so that what a machine's mishap has left behind holds nothing that the
new member needs (O14); and ``tflease reap``, by hand. Only who is claimed or marked is ever
signalled, and never anybody whose sentinel looks after it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from executor_agent import claims, traces
from executor_agent.core.claim import SENTINEL, Claim, Standing, standing
from executor_agent.core.supervision import SENTINEL_MODULE
from executor_agent.linux import boot_id
from executor_agent.processes import (
    ProcessIdentity,
    command_line,
    is_running,
    parent_of,
    runs_module,
    signal_if_same,
    state_of,
)
from executor_agent.sweep import (
    Swept,
    agent_of,
    conclude,
    read_tombstone,
    sweep,
    trace_of,
    unseen_end,
    with_survivors,
)
from executor_agent.traces import Found

AGENT_TIMEOUT = 3.0
"""Seconds that an agent gets which has lost its sentinel: it sweeps and reports by itself, and
then leaves."""

_PATIENCE = 8.0  # seconds for an agent that has a slot to reserve

KILL_TIMEOUT = 2.0
"""Seconds for what is sent SIGKILL to be gone; what is not is named and left for the next time."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A member without a sentinel that looks after it. ``since``: Unix time of its start, None
    where its claim is lost, too. ``processes``: who is left; nobody, when only the proof is
    missing. ``claim`` and ``directory``: None where its claim is lost."""

    marker: str
    why: str
    since: float | None
    processes: tuple[Found, ...]
    path: Path | None = None
    claim: Claim | None = None

    @property
    def run_id(self) -> str:
        """Of which run."""
        return self.marker.partition("/")[0]

    @property
    def member(self) -> str:
        """Of which member."""
        return self.marker.split("/")[1] if self.marker.count("/") >= 1 else ""


@dataclass(frozen=True, slots=True)
class Reaped:
    """What became of a leftover."""

    leftover: Leftover
    swept: Swept


def find(directory: Path) -> Iterator[Leftover]:
    """Leftovers of the claims in this directory. Changes nothing."""
    here = boot_id()
    for path, claim in claims.read_all(directory):
        found = standing(claim, here, lambda who: state_of(ProcessIdentity(*who)))
        if found is Standing.LIVES:
            continue
        left = traces.search([trace_of(claim)]) if found is not Standing.EARLIER_BOOT else []
        yield Leftover(claim.marker, found.value, claim.claimed_at, tuple(left), path, claim)


def find_unclaimed(directory: Path) -> list[Leftover]:
    """Marked processes that no sentinel is above and no claim tells of: a cleaner of temporary
    files took the claim away, or it lies in another home. For people to look at, and so not part
    of `find`."""
    claimed = {claim.marker for _, claim in claims.read_all(directory)}
    by_marker: dict[str, list[Found]] = {}
    for found in traces.marked():
        if found.marker not in claimed and _has_no_sentinel(found.identity.pid):
            by_marker.setdefault(found.marker, []).append(found)
    why = "no sentinel is above it"
    return [Leftover(marker, why, None, tuple(left)) for marker, left in sorted(by_marker.items())]


def reap(
    leftover: Leftover,
    *,
    agent_timeout: float = AGENT_TIMEOUT,
    kill_timeout: float = KILL_TIMEOUT,
    by: str,
) -> Reaped:
    """End what is left, at most both timeouts, and leave the proof; idempotent. ``by``: who asks,
    for the tombstone."""
    claim = leftover.claim
    if claim is None or leftover.path is None:
        trace = traces.Trace(leftover.marker, log="")
        return Reaped(leftover, sweep(trace, None, agent_timeout=0.0, kill_timeout=kill_timeout))
    if claim.boot_id != boot_id():
        swept = Swept()
    else:
        if leftover.why == Standing.HUNG.value:  # by its end the kernel ends the member's group
            signal_if_same(ProcessIdentity(*claim.processes[SENTINEL]), signal.SIGKILL)
        agent = agent_of(claim)
        patience = agent_timeout if agent is not None and is_running(agent) else 0.0
        swept = sweep(trace_of(claim), agent, agent_timeout=patience, kill_timeout=kill_timeout)
    # Its task or its agent may have been quicker, and said more.
    if leftover.path.exists():
        directory = Path(claim.directory)
        who = (claim.member, claim.run_id, claim.incarnation)
        unseen = unseen_end(who, claim, f"{leftover.why}; swept by {by}", swept)
        before = read_tombstone(directory) or unseen
        conclude(directory, leftover.path, with_survivors(before, swept.left))
    return Reaped(leftover, swept)


def reap_all(directory: Path, *, by: str, say: Callable[[str], None]) -> None:
    """Everything that `find` finds, within `_PATIENCE` and the last one's timeouts; a line for each
    that had somebody left. Raises OSError."""
    give_up_at = time.monotonic() + _PATIENCE
    for leftover in find(directory):
        if time.monotonic() >= give_up_at:
            say(f"more was left behind than could be ended in {_PATIENCE:g} s: see `tflease reap`")
            return
        reaped = reap(leftover, by=by)
        if leftover.processes or reaped.swept.killed or reaped.swept.left:
            say(in_words(reaped))


def in_words(reaped: Reaped) -> str:
    """One line: what was found, why, what was done, what is left."""
    leftover, swept = reaped.leftover, reaped.swept
    what = f"[{leftover.marker}] was left behind ({leftover.why})"
    killed = ", ".join(str(identity.pid) for identity in swept.killed) or "nobody"
    done = f"killed {killed} in {swept.seconds:.3f} s"
    if not swept.left:
        return f"{what}: {done}, nothing is left"
    left = ", ".join(f"{who.pid} {' '.join(command_line(who.pid))}"[:200] for who in swept.left)
    return f"{what}: {done}, but SIGKILL has not ended {left}: see `tflease reap`"


def _has_no_sentinel(pid: int) -> bool:
    """Orphans of a living sentinel are its children. False also when the way up breaks off because
    somebody on it has just died: then the next look tells."""
    above = parent_of(pid)
    while above is not None and above > 1:
        if runs_module(command_line(above), (SENTINEL_MODULE,)):
            return False
        above = parent_of(above)
    return above is not None
