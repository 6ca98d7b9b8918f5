"""Why a member ended, from what its sentinel and its own process saw (E1)."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest

from coordinator.core.model import Cause, ExitReport, Proof
from executor_agent.core.oom import Oom
from executor_agent.core.outcome import Outcome, Status
from executor_agent.core.supervision import (
    AGENT_SILENT,
    LIFELINE_CLOSED,
    MEMBER_EXITED,
    ExitFacts,
    Survivor,
    anchor_died,
)
from executor_agent.report import exit_report, with_lost_gpus

EXITED = ExitFacts(
    member="worker:0",
    run_id="run",
    incarnation="1",
    pid=77,
    exit_code=0,
    signal=None,
    killed_by_us=False,
    reason=MEMBER_EXITED,
    survivors=(),
    proof="sweep",
    max_rss_bytes=12345,
    user_seconds=1.0,
    system_seconds=0.5,
    stop_seconds=0.25,
    ended_at=1.0,
)
KILLED = EXITED.replace(exit_code=None, signal=int(signal.SIGKILL))
RAISED = Outcome(Status.RAISED, "ValueError", "bad labels", "Traceback ...", exit_code=1)


def report(
    facts: ExitFacts,
    outcome: Outcome | None = None,
    *,
    stop_asked: bool = False,
    oom: Oom = "no",
) -> ExitReport:
    return exit_report(facts, outcome, stop_asked=stop_asked, log_tail="the log", oom=oom)


@pytest.mark.parametrize(
    "outcome, cause",
    [
        (Outcome(Status.RETURNED), Cause.COMPLETED),
        (RAISED, Cause.USER_EXCEPTION),
        (replace(RAISED, peer_lost=True), Cause.PEER_LOST),
        (Outcome(Status.EXITED, "SystemExit", "sys.exit(3)", exit_code=3), Cause.EXIT_CODE),
        (Outcome(Status.PRELOAD_FAILED), Cause.PRELOAD_FAILED),
        (Outcome(Status.PAYLOAD_FAILED), Cause.PAYLOAD_FAILED),
        # What a failed import or unpickling looks like is not what losing a peer is.
        (Outcome(Status.PRELOAD_FAILED, peer_lost=True), Cause.PRELOAD_FAILED),
    ],
)
def test_a_process_that_left_by_itself_is_taken_at_its_word(outcome: Outcome, cause: Cause) -> None:
    assert report(EXITED, outcome).cause is cause


def test_what_was_raised_is_told_with_its_traceback_and_the_log() -> None:
    found = report(EXITED.replace(exit_code=1), RAISED)
    assert (found.exception_type, found.message) == ("ValueError", "bad labels")
    assert (found.traceback, found.log_tail) == ("Traceback ...", "the log")
    assert (found.exit_code, found.signal, found.killed_by_us) == (1, None, False)


@pytest.mark.parametrize(
    "oom, cause", [("yes", Cause.OUT_OF_MEMORY), ("no", Cause.KILLED_BY_SIGNAL)]
)
def test_a_kill_that_nobody_owns_is_out_of_memory_where_the_kernel_says_so(
    oom: Oom, cause: Cause
) -> None:
    """E1: it would be invisible otherwise."""
    assert report(KILLED, oom=oom).cause is cause


@pytest.mark.parametrize(
    "number, hint",
    [
        (signal.SIGKILL, "somebody sent SIGKILL"),
        (signal.SIGSEGV, "native code"),
        (signal.SIGABRT, "abort()"),
        (signal.SIGUSR1, ""),
    ],
)
def test_a_signal_comes_with_what_it_usually_means(number: int, hint: str) -> None:
    found = report(KILLED.replace(signal=int(number)))
    assert found.cause is Cause.KILLED_BY_SIGNAL
    assert hint in found.message
    assert bool(found.message) == bool(hint)


def test_an_exit_that_ran_none_of_python_s_exit_says_so() -> None:
    """E1: os._exit, or a program that could not be exec'ed."""
    found = report(EXITED.replace(exit_code=9))
    assert (found.cause, found.exit_code) == (Cause.EXIT_CODE, 9)
    assert "os._exit" in found.message


def test_even_exit_code_0_is_no_success_without_a_word() -> None:
    assert report(EXITED).cause is Cause.EXIT_CODE


@pytest.mark.parametrize("reason", [anchor_died("executor"), anchor_died("task"), LIFELINE_CLOSED])
@pytest.mark.parametrize("outcome", [None, RAISED, Outcome(Status.RETURNED)])
def test_whoever_went_first_explains_what_followed(reason: str, outcome: Outcome | None) -> None:
    """E2: what the process did after its executor had died is not its own doing."""
    found = report(KILLED.replace(killed_by_us=True, reason=reason), outcome)
    assert (found.cause, found.reason) == (Cause.PREEMPTED, reason)


@pytest.mark.parametrize("reason", [AGENT_SILENT, "agent was killed by signal 9"])
def test_a_dead_agent_is_a_cause_of_its_own(reason: str) -> None:
    assert report(KILLED.replace(reason=reason)).cause is Cause.AGENT_LOST


def test_a_stop_that_was_asked_for_is_no_failure() -> None:
    facts = KILLED.replace(killed_by_us=True, reason="training is complete")
    assert report(facts, stop_asked=True).cause is Cause.STOPPED


@pytest.mark.parametrize(
    "outcome, cause", [(Outcome(Status.RETURNED), Cause.COMPLETED), (RAISED, Cause.USER_EXCEPTION)]
)
def test_who_used_the_grace_tells_how_it_went(outcome: Outcome, cause: Cause) -> None:
    """E6: a save that failed during the stop is no clean end."""
    facts = EXITED.replace(reason="training is complete")
    assert report(facts, outcome, stop_asked=True).cause is cause


@pytest.mark.parametrize(
    "word, proof", [("kernel", Proof.KERNEL), ("sweep", Proof.SWEEP), ("none", Proof.NONE)]
)
def test_the_proof_is_passed_on_as_it_is(word: Any, proof: Proof) -> None:
    assert report(EXITED.replace(proof=word)).proof is proof


def test_survivors_are_named() -> None:
    """O10, O12."""
    facts = KILLED.replace(proof="none", survivors=(Survivor(4711, "python"), Survivor(4, "sh")))
    assert report(facts).survivors == ("4711 python", "4 sh")


def test_usage_and_the_time_to_stop_are_passed_on() -> None:
    found = report(EXITED)
    assert (found.max_rss_bytes, found.stop_seconds) == (12345, 0.25)


LOST = ("GPU-a (NVIDIA H100): NVML says 'GPU is lost'",)


@pytest.mark.parametrize(
    "found, message",
    [
        (report(KILLED), LOST[0]),
        (report(EXITED, RAISED), f"{LOST[0]}; the process said: ValueError: bad labels"),
        (report(EXITED, replace(RAISED, peer_lost=True)), f"{LOST[0]}; the process said"),
    ],
)
def test_a_failure_of_a_process_whose_gpu_is_gone_is_the_gpus(
    found: ExitReport, message: str
) -> None:
    """O11."""
    end = with_lost_gpus(found, LOST)
    assert end.cause is Cause.GPU_LOST
    assert message in end.message
    assert (end.signal, end.traceback) == (found.signal, found.traceback)
    assert with_lost_gpus(found, ()) is found


@pytest.mark.parametrize(
    "found",
    [
        report(EXITED, Outcome(Status.RETURNED)),
        report(EXITED, Outcome(Status.PRELOAD_FAILED)),
        report(KILLED, oom="yes"),
        report(KILLED.replace(reason="enough"), stop_asked=True),
        report(KILLED.replace(reason=anchor_died("executor"))),
    ],
)
def test_what_no_gpu_has_to_do_with_stays_what_it_is(found: ExitReport) -> None:
    assert with_lost_gpus(found, LOST) is found
