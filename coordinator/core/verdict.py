"""Who is to blame when several members fail (E2).

*Peer lost* is what innocents raise, often before the culprit's own end is seen (ARCHITECTURE.md,
"The verdict"),
so it never outranks a primary cause; nor does what happened to a member after it was told to
stop outrank what happened before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from coordinator.core.member import Member
from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    Failure,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    RunPhase,
    TaskState,
)


@dataclass(frozen=True, slots=True)
class Observed:
    """One member's end, in the order of observation."""

    member: MemberId
    report: ExitReport
    executor: ExecutorInfo | None
    after_stop: bool


def is_primary(report: ExitReport) -> bool:
    """True for a failure that explains others, False for one that others explain."""
    return report.cause.is_failure and report.cause is not Cause.PEER_LOST


_SPARK_WENT = ("task ", "daemon ", "executor ", "sentinel ", "cannot start")
"""How a sentinel's own words begin (``executor_agent.core.supervision``); all others are those of
its agent, which asked it to stop."""

_SIGKILL = 9
_TERM_SECONDS = 1.0
"""What a sentinel leaves between SIGTERM and SIGKILL (``executor_agent.core.supervision``)."""

VACATING = frozenset({Cause.PREEMPTED, Cause.AGENT_LOST, Cause.STOPPED})
"""Ends that say nothing of the program: while the gang forms, another attempt may take over."""


def of_task(member: MemberId, report: ExitReport, executor: ExecutorInfo | None) -> Failure:
    """Why a run fails whose task has returned before the gang was complete."""
    text = sentence(Observed(member, report, executor, after_stop=False))
    cause = Cause.TASK_FAILED if report.cause in VACATING else report.cause
    return Failure(cause, text, member, report)


def of_job(member: MemberView) -> Failure:
    """Why a run fails whose Spark job for this member has failed before the member."""
    why = member.task.message
    if member.phase is MemberPhase.EXPECTED:
        text = f"Spark gave up the task of {member.id}: {why}"
        return Failure(Cause.TASK_FAILED, text, member.id, member.exit)
    where = f" on {member.executor}" if member.executor else ""
    text = f"{member.id}{where} lost its Spark task: {why}"
    return Failure(Cause.PREEMPTED, text, member.id, member.exit)


_CANCELLED = re.compile(r"\bjob (\w+ )?(was )?cancell?ed\b", re.IGNORECASE)


def is_cancelled(task: TaskState) -> bool:
    """Whether somebody has cancelled the job: Spark says "Job 3 cancelled part of cancelled job
    group x", "Job 3 cancelled because Stage 5 was cancelled" and so on. Whoever cancels a job wants
    the end of it, and no restart."""
    return task.failed and _CANCELLED.search(task.message) is not None


def given_up(phase: RunPhase, members: Iterable[Member]) -> Member | None:
    """The first of them whose Spark task has failed for good, which its agent cannot know: it
    never came, or was cancelled. Spark tells the driver at once, and kills the task 2 to 4 s later.
    """
    for member in members:
        is_awaited = member.phase is MemberPhase.EXPECTED
        if phase is RunPhase.FORMING:
            concerns = is_awaited
        elif phase is RunPhase.RUNNING:  # awaited is who starts again alone
            concerns = is_awaited or member.phase.is_live
        else:  # a kill that was seen before its reason
            concerns = phase is RunPhase.RESTARTING and is_cancelled(member.task)
        if member.task.failed and concerns:
            return member
    return None


def unasked(report: ExitReport, generation: int, *, forming: bool) -> ExitReport:
    """How an end counts that nobody asked for. Success needs that there was something to do
    (``generation`` 0: the process was never started), and who stops by itself in a gang at work
    (an agent that fenced itself, say) leaves the others alone."""
    if report.cause is Cause.COMPLETED and generation == 0:
        text = "its process ended before main_fun was entered"
        return replace(report, cause=Cause.EXIT_CODE, message=report.message or text)
    if report.cause is Cause.STOPPED and not forming:
        text = f"it was stopped, and not by the coordinator: {report.reason or report.message}"
        return replace(report, cause=Cause.LOST_CONTACT, message=text)
    return report


def decide(ends: Sequence[Observed]) -> Failure | None:
    """The failure to raise, or None when nobody failed."""
    failed = [end for end in ends if end.report.cause.is_failure]
    if not failed:
        return None
    first = min(failed, key=_rank)  # min keeps the earliest among equals
    stuck = [end for end in ends if _was_stuck(end.report)]
    if first.report.cause is Cause.PEER_LOST and stuck:
        return _failure(_stalled(stuck[0]), [*map(_stalled, stuck[1:]), *failed])
    failure = _failure(first, failed)
    if first.report.cause is Cause.PEER_LOST:
        return replace(failure, summary=failure.summary + _missing_culprit(ends))
    return failure


def _failure(first: Observed, failed: Sequence[Observed]) -> Failure:
    return Failure(
        cause=first.report.cause,
        summary=sentence(first),
        member=first.member,
        exit=first.report,
        others=tuple(sentence(end) for end in failed if end is not first),
    )


def _was_stuck(report: ExitReport) -> bool:
    """It took SIGKILL after SIGTERM had had its time: a frozen process (SIGSTOP, a debugger), or
    one in a system call that does not end. With a grace of 0 there is no SIGTERM."""
    killed = report.cause is Cause.STOPPED and report.killed_by_us and report.signal == _SIGKILL
    return killed and report.stop_seconds >= _TERM_SECONDS


def _stalled(end: Observed) -> Observed:
    """The others lost it, and it was there all the while: it is what they lost."""
    return replace(end, report=replace(end.report, cause=Cause.STALLED))


def _rank(end: Observed) -> tuple[bool, bool]:
    return (end.after_stop, not is_primary(end.report))


def _missing_culprit(ends: Sequence[Observed]) -> str:
    early = [
        str(end.member)
        for end in ends
        if end.report.cause is Cause.COMPLETED and end.member.role is Role.PS
    ]
    if early:
        return (
            f". {', '.join(early)} had returned by then: main_fun of a ps must serve until it is "
            "told to stop (ctx.serve_forever())"
        )
    return ". No member failed by itself: one may hang, or the network between them may be cut"


def sentence(end: Observed) -> str:
    """What happened to one member, and where."""
    where = f" on {end.executor}" if end.executor else ""
    return f"{end.member}{where} {_what(end.report)}"


def _what(report: ExitReport) -> str:
    match report.cause:
        case Cause.USER_EXCEPTION:
            return f"raised {report.exception_type}: {report.message}"
        case Cause.EXIT_CODE:
            return f"ended with exit code {report.exit_code}{_suffix(report.message)}"
        case Cause.KILLED_BY_SIGNAL:
            return f"was killed by signal {report.signal}{_suffix(report.message)}"
        case Cause.OUT_OF_MEMORY:
            return (
                "was killed because its memory limit was reached "
                f"(its own peak was {report.max_rss_bytes / 2**20:.0f} MiB): "
                "raise the executor's memory overhead"
            )
        case Cause.LOST_CONTACT:
            return f"was lost: {report.message}"
        case Cause.PREEMPTED:
            why = report.reason or report.message
            by_spark = not why or why.startswith(_SPARK_WENT)
            return (
                f"lost its Spark task ({why})" if by_spark else f"was stopped by its agent: {why}"
            )
        case Cause.STALLED:
            return (
                "was stuck or frozen: its peers gave it up, and when it was told to stop it did "
                f"not even react to SIGTERM within {report.stop_seconds:.0f} s"
            )
        case Cause.GPU_LOST:
            return f"lost a GPU: {report.message}"
        case Cause.UNREACHABLE:
            return f"cannot reach its peers: {report.message}"
        case Cause.PEER_LOST:
            return f"lost a peer: {report.exception_type}: {report.message}"
        case _:
            return f"{report.cause.value}{_suffix(report.message or report.reason)}"


def _suffix(text: str) -> str:
    return f": {text}" if text else ""
