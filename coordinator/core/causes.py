"""Why members end."""

from __future__ import annotations

import enum


class Cause(enum.Enum):
    """Why a member ended. What a policy decides by (ARCHITECTURE.md, "The verdict")."""

    COMPLETED = "completed"
    USER_EXCEPTION = "user exception"
    EXIT_CODE = "exit code"
    KILLED_BY_SIGNAL = "killed by signal"
    OUT_OF_MEMORY = "out of memory"
    LOST_CONTACT = "lost contact"
    PREEMPTED = "preempted"
    PEER_LOST = "peer lost"
    PRELOAD_FAILED = "preload failed"
    PAYLOAD_FAILED = "payload failed"
    TASK_FAILED = "task failed"
    AGENT_LOST = "agent lost"
    GANG_INCOMPLETE = "gang incomplete"
    UNREACHABLE = "peers unreachable"
    STALLED = "stalled"
    GPU_LOST = "GPU lost"
    STOPPED = "stopped"

    @property
    def is_failure(self) -> bool:
        return self not in (Cause.COMPLETED, Cause.STOPPED)
