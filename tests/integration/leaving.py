"""Members of which something stays behind, and what is left of them, for tests."""

from __future__ import annotations

import sys
from typing import Any

from executor_agent import claims, leftovers
from executor_agent.core.claim import Claim
from executor_agent.core.supervision import TOMBSTONE, Tombstone
from executor_agent.leftovers import Leftover, Reaped
from executor_agent.processes import ProcessIdentity, state_of
from tests.integration.sentinel_helpers import PROGRAMS, Member, wait_gone

LEAVING = [sys.executable, str(PROGRAMS / "leaving_member.py")]


def is_stopped(who: ProcessIdentity) -> bool:
    return state_of(who) == "stopped"


def leave(member: Member, *kinds: str, **payload: Any) -> None:
    """Start a member with such descendants, and kill sentinel and task at once. Returns when who
    dies of it is gone."""
    payload = {"children": list(kinds), **payload}
    # A run of its own, by which `tflease reap` is told to leave everybody else's alone.
    member.start(payload=payload, member_argv=LEAVING, grace=30.0, run_id=member.marker)
    member.wait_heard("started")
    agent = ProcessIdentity(*claim_of(member).processes["agent"])
    member.kill_sentinel_and_task_at_once()
    dying = [member.processes["sentinel"], agent]
    wait_gone(dying if payload.get("tough") else [*dying, member.processes["member"]])


def claim_of(member: Member) -> Claim:
    claim = claims.read(member.claim)
    assert claim is not None
    return claim


def find(member: Member) -> tuple[Leftover, ...]:
    return leftovers.find(member.claim.parent)


def reap_one(member: Member, **how: Any) -> Reaped:
    [leftover] = find(member)
    return leftovers.reap(leftover, by="a test", **how)


def tombstone_of(member: Member) -> Tombstone:
    return Tombstone.from_json((member.directory / TOMBSTONE).read_bytes())
