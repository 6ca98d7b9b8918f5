"""From what the sentinel and the bootstrap saw to one report: why the member ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.core.model import Cause, ExitReport, Proof
from executor_agent.core import supervision
from executor_agent.core.oom import Oom
from executor_agent.core.outcome import Outcome, Status
from executor_agent.core.supervision import ExitFacts

_BY_STATUS = {
    Status.RETURNED: Cause.COMPLETED,
    Status.RAISED: Cause.USER_EXCEPTION,
    Status.EXITED: Cause.EXIT_CODE,
    Status.PRELOAD_FAILED: Cause.PRELOAD_FAILED,
    Status.PAYLOAD_FAILED: Cause.PAYLOAD_FAILED,
}
_PROOFS = {"kernel": Proof.KERNEL, "sweep": Proof.SWEEP, "none": Proof.NONE}


@dataclass(frozen=True, slots=True)
class _Story:
    cause: Cause
    message: str = ""


def exit_report(
    facts: ExitFacts, outcome: Outcome | None, *, stop_asked: bool, log_tail: str, oom: Oom
) -> ExitReport:
    """``stop_asked``: the coordinator had asked for the stop, so it explains itself."""
    story = _story(facts, outcome, stop_asked, oom)
    return ExitReport(
        cause=story.cause,
        exit_code=facts.exit_code,
        signal=facts.signal,
        killed_by_us=facts.killed_by_us,
        reason=facts.reason,
        exception_type=(outcome.exception_type or "") if outcome else "",
        message=story.message,
        traceback=outcome.traceback if outcome else "",
        log_tail=log_tail,
        proof=_PROOFS[facts.proof],
        survivors=tuple(f"{each.pid} {each.name}" for each in facts.survivors),
        max_rss_bytes=facts.max_rss_bytes,
        stop_seconds=facts.stop_seconds,
    )


_BY_A_LOST_GPU = (
    Cause.USER_EXCEPTION,
    Cause.EXIT_CODE,
    Cause.KILLED_BY_SIGNAL,
    Cause.PEER_LOST,
)
"""What a process may end with by itself whose GPU is gone."""


def with_lost_gpus(report: ExitReport, lost: Sequence[str]) -> ExitReport:
    """``lost``: those of the member's GPUs that nobody can use any more, a phrase each. A process
    that failed on such a host would not have failed otherwise, as far as anybody can tell."""
    is_its_own = report.reason == supervision.MEMBER_EXITED
    if not lost or not is_its_own or report.cause not in _BY_A_LOST_GPU:
        return report
    said = ": ".join(filter(None, (report.exception_type, report.message)))
    message = "; ".join(lost) + (f"; the process said: {said}" if said else "")
    return replace(report, cause=Cause.GPU_LOST, message=message)


def _story(facts: ExitFacts, outcome: Outcome | None, stop_asked: bool, oom: Oom) -> _Story:
    by_itself = facts.reason == supervision.MEMBER_EXITED
    if not by_itself and not stop_asked:
        # Its task, executor, sentinel or agent went first: whatever the process did after that,
        # returning included, is not its own doing.
        agent_first = facts.reason.startswith("agent ")
        return _Story(Cause.AGENT_LOST if agent_first else Cause.PREEMPTED, facts.reason)
    if outcome is not None:
        cause = _BY_STATUS[outcome.status]
        if cause is Cause.USER_EXCEPTION and outcome.peer_lost:
            cause = Cause.PEER_LOST
        return _Story(cause, outcome.message)
    if not by_itself:
        return _Story(Cause.STOPPED, facts.reason)
    return _without_outcome(facts, oom)


def _without_outcome(facts: ExitFacts, oom: Oom) -> _Story:
    if oom == "yes":
        return _Story(Cause.OUT_OF_MEMORY)
    if facts.signal is not None:
        hint = {
            9: "somebody sent SIGKILL, or the kernel was out of memory where we cannot see it",
            11: "a crash in native code; the log's tail may have its stack",
            6: "native code called abort(); the log's tail may say why",
        }.get(facts.signal, "")
        return _Story(Cause.KILLED_BY_SIGNAL, hint)
    left = "the process left without running Python's exit, for instance by os._exit"
    return _Story(Cause.EXIT_CODE, left)
