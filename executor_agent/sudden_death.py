"""What the task does when its sentinel ends without a tombstone: it was killed, or it hung.

Owns: the sweep by marker, and the tombstone that says no more than the sweep has proven. The kernel
has killed the member's group by then (PDEATHSIG, dead-man pipe); left are descendants in sessions
of their own, and the agent, which sweeps as well, reports to the coordinator and leaves. Must not
know pipes or how the sentinel is started.
"""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from executor_agent.core.supervision import (
    CLAIM,
    LOCAL_DIRECTORY,
    TOMBSTONE,
    Claim,
    Survivor,
    Tombstone,
    judge_oom,
)
from executor_agent.linux import write_atomically
from executor_agent.processes import (
    ProcessIdentity,
    name_of,
    oom_kill_count,
    processes_with_marker,
    signal_if_same,
)

_SWEEP_INTERVAL = 0.02  # seconds; a scan costs about as much


@dataclass(frozen=True, slots=True)
class SuddenDeath:
    """A sentinel's end without a tombstone."""

    member: str
    run_id: str
    incarnation: str
    marker: str
    directory: Path
    exit_code: int | None  # as subprocess has it; None: it was detached, so nobody was told
    hung: bool  # it did not end in time, and was killed by its task
    oom_kills_before: int | None  # the cgroup's counter when it was started


def sweep_after_sudden_death(
    death: SuddenDeath, *, agent_timeout: float, kill_timeout: float
) -> Tombstone:
    """Kill what the sentinel would have killed, and write the tombstone in its stead.

    On return no process with the marker is left, or the tombstone names it. Takes two scans when
    there is nothing left to do, at most both timeouts.
    """
    claim = _read_claim(death)
    began_at = time.monotonic()
    agent, member = _claimed(claim, "agent"), _claimed(claim, "member")
    left = _sweep(death.marker, agent, agent_timeout, kill_timeout)
    killed_by_others = death.exit_code == -signal.SIGKILL and not death.hung
    tombstone = Tombstone(
        member=death.member,
        run_id=death.run_id,
        incarnation=death.incarnation,
        pid=None if member is None else member.pid,
        exit_code=None,
        signal=None,
        killed_by_us=False,
        reason=_describe(death),
        # Whatever has killed the sentinel is what has ended the member.
        oom=judge_oom(
            signal.SIGKILL if killed_by_others else None,
            False,
            death.oom_kills_before,
            oom_kill_count(),
        ),
        survivors=tuple(Survivor(each.pid, name_of(each.pid)) for each in left),
        proof="none" if left else "sweep",
        max_rss_bytes=0,
        user_seconds=0.0,
        system_seconds=0.0,
        stop_seconds=time.monotonic() - began_at,
        ended_at=time.time(),
    )
    with suppress(OSError):  # a full disk must not cost the report
        write_atomically(death.directory / TOMBSTONE, tombstone.to_json())
    shutil.rmtree(death.directory / LOCAL_DIRECTORY, ignore_errors=True)
    return tombstone


def _sweep(
    marker: str, agent: ProcessIdentity | None, agent_timeout: float, kill_timeout: float
) -> list[ProcessIdentity]:
    """Kill until two scans in a row find nothing; return who is left when time is up. The agent
    is spared for a while, nobody else."""
    spare_until = time.monotonic() + agent_timeout
    give_up_at = spare_until + kill_timeout
    clean = 0
    while True:
        found = processes_with_marker(marker)
        now = time.monotonic()
        clean = 0 if found else clean + 1
        if clean == 2 or now >= give_up_at:
            return found
        for identity in found:
            if identity != agent or now >= spare_until:
                signal_if_same(identity, signal.SIGKILL)
        if found:
            time.sleep(_SWEEP_INTERVAL)


def _read_claim(death: SuddenDeath) -> Claim | None:
    try:
        claim = Claim.from_json((death.directory / CLAIM).read_bytes())
    except (OSError, ValueError):
        return None  # it died before it had started anybody
    return claim if claim.marker == death.marker else None


def _claimed(claim: Claim | None, name: str) -> ProcessIdentity | None:
    if claim is None or name not in claim.processes:
        return None
    return ProcessIdentity(*claim.processes[name])


def _describe(death: SuddenDeath) -> str:
    code = death.exit_code
    if death.hung:
        return "sentinel did not end in time and was killed"
    if code is None:
        return "sentinel ended without a word, see the executor's stderr"
    if code == 2:
        return "sentinel refused its configuration, see the executor's stderr"
    return f"sentinel was killed by signal {-code}" if code < 0 else f"sentinel failed ({code})"
