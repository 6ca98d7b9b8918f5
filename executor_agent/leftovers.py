"""What earlier members have left on this host: found, and on request ended.

Owns: the walk over all claims of our user, and the proof that it leaves. Two callers: every agent,
before it reserves its slot, so that what a machine's mishap has left behind holds nothing that the
new member needs (O14); and ``tflease reap``, by hand. Only who is claimed or marked is ever
signalled, and never anybody whose sentinel looks after it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from executor_agent import claims, traces
from executor_agent.core.claim import SENTINEL, Claim, Place, Standing, standing
from executor_agent.core.supervision import SENTINEL_MODULE, SENTINEL_START
from executor_agent.processes import (
    ProcessIdentity,
    is_running,
    name_of,
    parent_of,
    signal_if_same,
    state_of,
)
from executor_agent.spark_chain import command_line
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
    missing. ``path`` and ``claim``: None where its claim is lost."""

    marker: str
    why: str
    since: float | None
    processes: tuple[Found, ...]
    path: Path | None = None
    claim: Claim | None = None

    @property
    def run_id(self) -> str:
        """Of which run."""
        return self.claim.run_id if self.claim is not None else self.marker.partition("/")[0]

    @property
    def member(self) -> str:
        """Of which member."""
        if self.claim is not None:
            return self.claim.member
        return self.marker.split("/")[1] if self.marker.count("/") >= 1 else ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the claims of a directory say by now. ``living`` and ``elsewhere``: how many members
    live, and how many are of another host or container that shares the directory. ``broken``:
    claims that cannot be understood; nobody is sought by them."""

    leftovers: tuple[Leftover, ...]
    living: int
    elsewhere: int
    broken: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Reaped:
    """What became of a leftover. ``spared``: its sentinel, which was stopped, runs again."""

    leftover: Leftover
    swept: Swept
    spared: bool = False


def survey(directory: Path) -> Survey:
    """Look at every claim in this directory. Changes nothing. Raises OSError."""
    here = claims.here()
    count = dict.fromkeys(Standing, 0)
    left: list[tuple[Path, Claim, Standing]] = []
    broken: list[Path] = []
    for path in claims.paths(directory):
        claim = claims.read(path)
        if claim is None:
            broken += [path] if path.exists() else []  # else it has just ended in order
            continue
        found = _standing(claim, here)
        count[found] += 1
        if found not in (Standing.LIVES, Standing.ELSEWHERE):
            left.append((path, claim, found))
    processes = _processes_of([claim for _, claim, why in left if why is not Standing.EARLIER_BOOT])
    leftovers = (
        Leftover(
            claim.marker,
            why.value,
            claim.claimed_at,
            tuple(processes.get(claim.marker, ())) if why is not Standing.EARLIER_BOOT else (),
            path,
            claim,
        )
        for path, claim, why in left
    )
    living, elsewhere = count[Standing.LIVES], count[Standing.ELSEWHERE]
    return Survey(tuple(leftovers), living, elsewhere, tuple(broken))


def find(directory: Path) -> tuple[Leftover, ...]:
    """Leftovers of the claims in this directory. Changes nothing. Raises OSError."""
    return survey(directory).leftovers


def find_unclaimed(directory: Path) -> list[Leftover]:
    """Marked processes that no sentinel is above and no claim tells of: a cleaner of temporary
    files took the claim away, or it lies in another home. For people to look at, and so not part
    of `find`. Raises OSError."""
    # In this order: who is started meanwhile is claimed before it is marked.
    by_marker: dict[str, list[Found]] = {}
    for found in traces.marked():
        by_marker.setdefault(found.marker, []).append(found)
    claimed = {claim.marker for _, claim in claims.read_all(directory)}
    return [
        Leftover(marker, "no sentinel is above it, and it has no claim", None, tuple(left))
        for marker, left in sorted(by_marker.items())
        # One below a sentinel is enough: no descendant of a living one is anywhere else.
        if marker not in claimed and all(_has_no_sentinel(each.identity.pid) for each in left)
    ]


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
    now = _standing(claim, claims.here())
    if now in (Standing.LIVES, Standing.ELSEWHERE):
        return Reaped(leftover, Swept(), spared=True)
    if now is Standing.EARLIER_BOOT:
        swept = Swept()
    else:
        if now is Standing.HUNG:  # by its end the kernel ends the member's group
            signal_if_same(ProcessIdentity(*claim.processes[SENTINEL]), signal.SIGKILL)
        agent = agent_of(claim)
        patience = agent_timeout if agent is not None and is_running(agent) else 0.0
        swept = sweep(trace_of(claim), agent, agent_timeout=patience, kill_timeout=kill_timeout)
    # Its task or its agent may have been quicker, and said more.
    if leftover.path.exists():
        directory = Path(claim.directory)
        who = (claim.member, claim.run_id, claim.incarnation)
        unseen = unseen_end(who, claim, f"{now.value}; swept by {by}", swept)
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
            say(f"{in_words(reaped)}{': see `tflease reap`' if reaped.swept.left else ''}")


def is_hung(path: Path) -> bool:
    """Whether the sentinel of this claim is stopped and what it watched is gone."""
    claim = claims.read(path)
    return claim is not None and _standing(claim, claims.here()) is Standing.HUNG


def in_words(reaped: Reaped) -> str:
    """One line: what was found, why, what was done, what is left."""
    leftover, swept = reaped.leftover, reaped.swept
    what = f"[{leftover.marker}] was left behind ({leftover.why})"
    if reaped.spared:
        return f"{what}: its sentinel runs again and looks after it, so it was left alone"
    killed = ", ".join(str(identity.pid) for identity in swept.killed) or "nobody"
    done = f"killed {killed} in {swept.seconds:.3f} s"
    if not swept.left:
        return f"{what}: {done}, nothing is left"
    left = ", ".join(f"{who.pid} {command_of(who.pid)}"[:200] for who in swept.left)
    return f"{what}: {done}, but SIGKILL has not ended {left}"


def command_of(pid: int) -> str:
    """What it runs, for people; the kernel's short name where the command line is empty."""
    text = " ".join(command_line(pid)) or f"[{name_of(pid)}]"
    return "".join(each if each.isprintable() else "?" for each in text)


def started_at(identity: ProcessIdentity) -> float:
    """Unix time."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + identity.create_time


def kernel_state(pid: int) -> str:
    """ "D (disk sleep)", say, which SIGKILL waits for; "?" when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            if line.startswith("State:"):
                return line.partition(":")[2].strip()
    return "?"


def _standing(claim: Claim, here: Place) -> Standing:
    return standing(claim, here, lambda who: state_of(ProcessIdentity(*who)))


def _processes_of(members: list[Claim]) -> dict[str, list[Found]]:
    """By marker, from one search for all of them."""
    by_marker: dict[str, list[Found]] = {}
    for found in traces.search([trace_of(claim) for claim in members]) if members else ():
        by_marker.setdefault(found.marker, []).append(found)
    return by_marker


def _has_no_sentinel(pid: int) -> bool:
    """Orphans of a living sentinel are its children. False also when the way up breaks off because
    somebody on it has just died: then the next look tells."""
    above = parent_of(pid)
    while above is not None and above > 1:
        if (SENTINEL_START, SENTINEL_MODULE) in pairwise(command_line(above)):
            return False
        above = parent_of(above)
    return above is not None
