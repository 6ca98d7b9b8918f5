"""A member's whole tree that attends at a coordinator: real sentinel, real agent, and a member's
process with unpleasant descendants, below a task that can be killed. Only Spark is missing."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from coordinator.core.access import ClientTls
from coordinator.core.model import RunId
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.supervision import Tombstone
from executor_agent.processes import is_running, signal_if_same
from tests.integration.sentinel_helpers import ALL, PROGRAMS, Member, wait_gone

NAME, INCARNATION = "worker:0", "attempt-1"


class AttendingTree:
    """The tree of worker:0. Every call that waits does so in a thread: the coordinator and the
    line to it may live in the test's event loop."""

    def __init__(self, member: Member) -> None:
        self.member = member

    async def start(
        self,
        run_id: RunId,
        coordinator: str,
        token: str,
        *,
        tls: ClientTls | None = None,
        forming: bool = False,
        **more: Any,
    ) -> None:
        """Returns when the member and all its descendants are there. ``forming``: other members
        are missing, so that it is never started."""
        member = self.member
        config = AgentConfig(
            coordinator=coordinator,
            token=token,
            run_id=run_id,
            member=NAME,
            incarnation=INCARNATION,
            marker=member.marker,
            executor_id="7",
            directory=str(member.directory),
            claim=str(member.claim),
            grace=5.0,
            connect_timeout=20.0,
            tls=None if tls is None else tls.to_plain(),
        )
        await asyncio.to_thread(
            member.start,
            payload={"children": list(ALL), "ignore": True, "forming": forming},
            member=NAME,
            run_id=run_id,
            incarnation=INCARNATION,
            agent_argv=[sys.executable, "-m", "executor_agent.agent"],
            agent_config=config.to_json(),
            member_argv=[sys.executable, str(PROGRAMS / "attending_member.py")],
            **more,
        )

    def signal_agent(self, number: int) -> None:
        """Freeze it, let it go on."""
        assert signal_if_same(self.member.agent(), number)

    def lives(self) -> bool:
        """Whether everybody is there."""
        return all(is_running(who) for who in self.member.processes.values())

    async def gone(self) -> Tombstone:
        """What the task returns, once nothing of the tree is left but the task."""
        return await asyncio.to_thread(self._gone)

    def _gone(self) -> Tombstone:
        member = self.member
        wait_gone(member.tree())
        tombstone = member.result()
        assert tombstone == member.tombstone()
        assert (tombstone.proof, tombstone.survivors) == ("kernel", ())
        assert member.marked() == []
        return tombstone
