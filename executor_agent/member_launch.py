"""What is to be started and supervised for one member: the blueprint of a SentinelProcess.

Owns: the values, and how they become the sentinel's configuration. Must not know how a sentinel is
started, nor who asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executor_agent.core.supervision import AnchorName, SentinelConfig
from executor_agent.processes import ProcessIdentity


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the sentinel inherits, as SentinelConfig has it."""

    lifeline: int
    shared_dead_man_read: int
    shared_dead_man_write: int
    task_dead_man: int | None
    voice: int | None
    agent_config: int
    payload: int


@dataclass(frozen=True, slots=True)
class MemberLaunch:
    """One member's blueprint."""

    member: str  # "worker:1"
    run_id: str
    incarnation: str
    marker: str
    directory: Path  # exists, 0700, absolute
    claim: Path  # as SentinelConfig has it
    watch: Mapping[AnchorName, ProcessIdentity]  # see spark_chain.spark_chain
    grace: float  # seconds that the member gets when it is stopped because its task ends
    agent_argv: tuple[str, ...]
    agent_env: Mapping[str, str]  # complete
    agent_config: bytes = field(repr=False)  # the agent reads it from descriptor 5; has secrets
    member_argv: tuple[str, ...]
    member_env: Mapping[str, str]  # complete
    payload: bytes = field(repr=False)  # the member reads it from descriptor 5
    cwd: Path
    term_timeout: float = 1.0
    kill_timeout: float = 10.0
    report_timeout: float = 3.0
    hand_over_timeout: float = 30.0  # for an answer that takes a millisecond; else it hangs
    detached: bool = False  # to be handed over to the executor, which must then be watched

    def configuration(self, given: Descriptors) -> SentinelConfig:
        """What the sentinel is told."""
        return SentinelConfig(
            member=self.member,
            run_id=self.run_id,
            incarnation=self.incarnation,
            marker=self.marker,
            directory=str(self.directory),
            claim=str(self.claim),
            watch={name: (who.pid, who.create_time) for name, who in self.watch.items()},
            grace=self.grace,
            agent_argv=self.agent_argv,
            agent_env=self.agent_env,
            member_argv=self.member_argv,
            member_env=self.member_env,
            cwd=str(self.cwd),
            shared_dead_man_read_fd=given.shared_dead_man_read,
            shared_dead_man_write_fd=given.shared_dead_man_write,
            agent_config_fd=given.agent_config,
            payload_fd=given.payload,
            lifeline_fd=given.lifeline,
            task_dead_man_fd=given.task_dead_man,
            voice_fd=given.voice,
            term_timeout=self.term_timeout,
            kill_timeout=self.kill_timeout,
            report_timeout=self.report_timeout,
        )
