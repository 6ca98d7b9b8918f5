"""What the sentinel notes about the member's end until the facts are told.

Owns: the wait status and its words, the resource usage, which signals were ours. Must not know why
the stop began or what is left of the tree: that comes in when the facts are drawn up.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence

from executor_agent.core.supervision import ExitFacts, Proof, SentinelConfig, Survivor
from executor_agent.processes import ProcessIdentity, name_of


class ExitRecord:
    """One member's end, from its start on."""

    def __init__(self) -> None:
        self._sent: set[int] = set()
        self._status: int | None = None
        self._usage: resource.struct_rusage | None = None
        self._ended_at: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the member was reaped."""
        return self._status is not None

    def sent(self, number: int) -> None:
        """We send this signal to the member, which is not reaped yet."""
        self._sent.add(number)

    def end(self, status: int, usage: resource.struct_rusage) -> None:
        """The member was reaped just now."""
        self._status, self._usage = status, usage
        self._ended_at = time.time()

    def facts(
        self,
        config: SentinelConfig,
        *,
        pid: int | None,
        reason: str,
        proof: Proof,
        survivors: Sequence[ProcessIdentity],
        stop_seconds: float,
    ) -> ExitFacts:
        """Everything that is known by now."""
        usage = self._usage
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        number = -code if code is not None and code < 0 else None
        killed_by_us = number in self._sent
        return ExitFacts(
            member=config.member,
            run_id=config.run_id,
            incarnation=config.incarnation,
            pid=pid,
            exit_code=code if number is None else None,
            signal=number,
            killed_by_us=killed_by_us,
            reason=reason,
            survivors=tuple(map(survivor, survivors)),
            proof=proof,
            max_rss_bytes=0 if usage is None else usage.ru_maxrss * 1024,
            user_seconds=0.0 if usage is None else usage.ru_utime,
            system_seconds=0.0 if usage is None else usage.ru_stime,
            stop_seconds=stop_seconds,
            ended_at=time.time() if self._ended_at is None else self._ended_at,
        )


def survivor(identity: ProcessIdentity) -> Survivor:
    """Who is still there, for people and for the next look."""
    return Survivor(identity.pid, name_of(identity.pid), identity.create_time)


def describe(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
