"""The sweep: kill whoever carries a member's traces until nobody does, and write down the proof.

For a member whose sentinel is gone. Its task and its agent sweep at once; the next agent on the
host and ``tflease reap`` sweep what those have missed.
"""

from __future__ import annotations

import glob
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from executor_agent.core.claim import AGENT, MEMBER, SENTINEL, Claim
from executor_agent.core.supervision import (
    LOCAL_DIRECTORY,
    MEMBER_LOG,
    TOMBSTONE,
    Proof,
    Tombstone,
)
from executor_agent.exit_record import survivor
from executor_agent.linux import write_atomically
from executor_agent.processes import ProcessIdentity, signal_if_same
from executor_agent.traces import Found, Trace, search

_INTERVAL = 0.02  # seconds; a search costs about as much


@dataclass(slots=True)
class Swept:
    """``killed``: everybody who was sent SIGKILL. ``left``: who was still there at the end."""

    killed: dict[ProcessIdentity, Found] = field(default_factory=dict)
    left: list[ProcessIdentity] = field(default_factory=list)
    seconds: float = 0.0


def sweep(
    trace: Trace, agent: ProcessIdentity | None, *, agent_timeout: float, kill_timeout: float
) -> Swept:
    """Kill until two searches in a row find nothing, at most both timeouts. The agent is spared for
    a while, nobody else: it sweeps as well, reports to the coordinator and leaves."""
    began_at = time.monotonic()
    spare_until = began_at + agent_timeout
    give_up_at = spare_until + kill_timeout
    swept = Swept()
    clean, is_late = 0, False
    while True:
        found = search([trace])
        now = time.monotonic()
        clean = 0 if found else clean + 1
        if clean == 2 or (is_late and found):
            swept.left = [each.identity for each in found]
            swept.seconds = now - began_at
            return swept
        is_late = now >= give_up_at  # then once more: a search may have taken all of the time
        for each in found:
            is_spared = each.identity == agent and now < spare_until
            if not is_spared and signal_if_same(each.identity, signal.SIGKILL):
                swept.killed[each.identity] = each
        time.sleep(_INTERVAL)  # also when clean: amid its exec a process shows no environment


def read_tombstone(directory: Path) -> Tombstone | None:
    """None: there is none, or it cannot be understood."""
    try:
        return Tombstone.from_json((directory / TOMBSTONE).read_bytes())
    except (OSError, ValueError):
        return None


def trace_of(claim: Claim) -> Trace:
    """What the member of this claim has left, those included that have survived a sweep."""
    tombstone = read_tombstone(Path(claim.directory))
    started = (who for name, who in claim.processes.items() if name != SENTINEL)
    survived = tombstone.survivors if tombstone is not None else ()
    return Trace(
        marker=claim.marker,
        log=str(Path(claim.directory, MEMBER_LOG)),
        pipe=claim.pipe,
        since=min((created for _, created in claim.processes.values()), default=0.0),
        known=frozenset(
            (
                *(ProcessIdentity(*who) for who in started),
                *(ProcessIdentity(each.pid, each.create_time) for each in survived),
            )
        ),
    )


def agent_of(claim: Claim) -> ProcessIdentity | None:
    """The agent, where it was started."""
    return ProcessIdentity(*claim.processes[AGENT]) if AGENT in claim.processes else None


def conclude(directory: Path, claim: Path | None, tombstone: Tombstone) -> None:
    """Leave the tombstone, and take the claim away unless somebody survived. A full disk must not
    cost the caller its report."""
    with suppress(OSError):
        write_atomically(directory / TOMBSTONE, tombstone.to_json())
    if claim is not None and not tombstone.survivors:
        take_away(claim)
    shutil.rmtree(directory / LOCAL_DIRECTORY, ignore_errors=True)


def take_away(claim: Path) -> None:
    """And what a killed sentinel had half written."""
    with suppress(OSError):
        for each in (claim, *claim.parent.glob(f".{glob.escape(claim.name)}.*")):
            each.unlink(missing_ok=True)


def unseen_end(
    who: tuple[str, str, str], claim: Claim | None, reason: str, swept: Swept
) -> Tombstone:
    """An end that nobody saw. ``who``: member, run, incarnation."""
    member, run_id, incarnation = who
    pid = claim.processes[MEMBER][0] if claim is not None and MEMBER in claim.processes else None
    ended = Tombstone(
        member=member,
        run_id=run_id,
        incarnation=incarnation,
        pid=pid,
        exit_code=None,
        signal=None,
        killed_by_us=False,
        reason=reason,
        survivors=(),
        proof="sweep",
        max_rss_bytes=0,
        user_seconds=0.0,
        system_seconds=0.0,
        stop_seconds=swept.seconds,
        ended_at=time.time(),
    )
    return with_survivors(ended, swept.left)


def with_survivors(tombstone: Tombstone, left: Iterable[ProcessIdentity]) -> Tombstone:
    """The same end, and who is left of it by now."""
    survivors = tuple(map(survivor, left))
    proof: Proof = "none" if survivors else "sweep"
    if not survivors and tombstone.proof == "kernel":  # nobody has seen more than that since
        proof = "kernel"
    return tombstone.replace(survivors=survivors, proof=proof)
