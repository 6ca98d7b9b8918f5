"""Who is to blame (E2)."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core import verdict
from coordinator.core.model import Cause, ExecutorInfo, ExitReport, MemberId

HOST = ExecutorInfo("node-a", "boot", 1, executor_id="3")


def end(slot: str, cause: Cause, *, after_stop: bool = False, **facts: Any) -> verdict.Observed:
    return verdict.Observed(MemberId.parse(slot), ExitReport(cause, **facts), HOST, after_stop)


def blamed(*ends: verdict.Observed) -> str:
    failure = verdict.decide(ends)
    assert failure is not None
    return str(failure.member)


def test_nobody_is_blamed_when_nobody_failed() -> None:
    assert verdict.decide([]) is None
    assert verdict.decide([end("ps:0", Cause.STOPPED), end("chief:0", Cause.COMPLETED)]) is None


@pytest.mark.parametrize("cause", [c for c in Cause if c.is_failure and c is not Cause.PEER_LOST])
def test_every_primary_cause_outranks_an_earlier_lost_peer(cause: Cause) -> None:
    """E2"""
    assert blamed(end("worker:0", Cause.PEER_LOST), end("worker:1", cause)) == "worker:1"


def test_of_equals_the_first_seen_is_blamed_and_the_rest_are_attached() -> None:
    """E2"""
    failure = verdict.decide(
        [
            end("worker:2", Cause.PEER_LOST, exception_type="UnavailableError", message="closed"),
            end("worker:1", Cause.USER_EXCEPTION, exception_type="ValueError", message="bad"),
            end("worker:0", Cause.EXIT_CODE, exit_code=3),
            end("ps:0", Cause.STOPPED),
        ]
    )
    assert failure is not None
    assert failure.summary == "worker:1 on node-a (executor 3) raised ValueError: bad"
    assert failure.others == (
        "worker:2 on node-a (executor 3) lost a peer: UnavailableError: closed",
        "worker:0 on node-a (executor 3) ended with exit code 3",
    )


def test_what_happened_before_the_stop_outranks_what_the_stop_did() -> None:
    """E2"""
    killed = end("worker:1", Cause.KILLED_BY_SIGNAL, signal=9, after_stop=True)
    assert blamed(killed, end("worker:0", Cause.PEER_LOST)) == "worker:0"
    assert blamed(killed, end("worker:0", Cause.PEER_LOST, after_stop=True)) == "worker:1"


def test_without_a_culprit_the_verdict_says_that_somebody_may_hang() -> None:
    """E5"""
    failure = verdict.decide([end("worker:0", Cause.PEER_LOST)])
    assert failure is not None
    assert "No member failed by itself: one may hang" in failure.summary


def test_a_ps_that_returned_early_is_named_as_the_likely_reason() -> None:
    failure = verdict.decide([end("ps:1", Cause.COMPLETED), end("worker:0", Cause.PEER_LOST)])
    assert failure is not None
    assert "ps:1 had returned by then: main_fun of a ps must serve" in failure.summary


@pytest.mark.parametrize(
    "cause, facts, words",
    [
        (Cause.EXIT_CODE, {"exit_code": 7}, "ended with exit code 7"),
        (Cause.KILLED_BY_SIGNAL, {"signal": 11, "message": "core"}, "killed by signal 11: core"),
        (Cause.OUT_OF_MEMORY, {"max_rss_bytes": 3 << 20}, "its own peak was 3 MiB"),
        (Cause.LOST_CONTACT, {"message": "silent"}, "was lost: silent"),
        (Cause.PREEMPTED, {"reason": "task died"}, "lost its Spark task (task died)"),
        (
            Cause.PREEMPTED,
            {"reason": "no free port in 40000-40003 on node-a"},
            "was stopped by its agent: no free port in 40000-40003 on node-a",
        ),
        (Cause.UNREACHABLE, {"message": "from a to b"}, "cannot reach its peers: from a to b"),
        (Cause.PRELOAD_FAILED, {"message": "cannot import"}, "preload failed: cannot import"),
        (Cause.AGENT_LOST, {"reason": "agent died"}, "agent lost: agent died"),
    ],
)
def test_every_end_is_told_in_words(cause: Cause, facts: dict[str, Any], words: str) -> None:
    """E1"""
    assert words in verdict.sentence(end("worker:0", cause, **facts))


def test_success_before_there_was_anything_to_do_counts_as_a_failure() -> None:
    early = verdict.unasked(ExitReport(Cause.COMPLETED, exit_code=0), 0, forming=True)
    assert early.cause is Cause.EXIT_CODE
    assert early.message == "its process ended before main_fun was entered"
    fine = ExitReport(Cause.COMPLETED, exit_code=0)
    assert verdict.unasked(fine, 1, forming=False) is fine


def test_a_stop_of_its_own_accord_counts_as_lost_once_the_gang_works() -> None:
    report = ExitReport(Cause.STOPPED, reason="fenced")
    assert verdict.unasked(report, 0, forming=True) is report
    lost = verdict.unasked(report, 1, forming=False)
    assert lost.cause is Cause.LOST_CONTACT
    assert lost.message == "it was stopped, and not by the coordinator: fenced"


def frozen(slot: str, **facts: Any) -> verdict.Observed:
    """Told to stop, it did not go before SIGKILL."""
    facts = {"killed_by_us": True, "signal": 9, "stop_seconds": 6.0, **facts}
    return end(slot, Cause.STOPPED, after_stop=True, **facts)


def test_who_was_frozen_while_others_lost_a_peer_is_what_they_lost() -> None:
    """E2: the first exception is an innocent's."""
    lost = end("worker:0", Cause.PEER_LOST, exception_type="UnavailableError", message="closed")
    failure = verdict.decide(
        [lost, frozen("worker:1", log_tail="step 7"), end("ps:0", Cause.STOPPED)]
    )
    assert failure is not None
    assert failure.cause is Cause.STALLED
    assert failure.summary.startswith("worker:1 on node-a (executor 3) was stuck or frozen")
    assert failure.exit is not None
    assert failure.exit.log_tail == "step 7"
    assert failure.others == (
        "worker:0 on node-a (executor 3) lost a peer: UnavailableError: closed",
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"signal": 15},  # it slept or waited, and SIGTERM ended it
        {"stop_seconds": 0.02},  # its grace was 0: no SIGTERM was sent
        {"killed_by_us": False},
    ],
)
def test_who_obeyed_or_was_given_no_time_is_not_called_frozen(facts: dict[str, Any]) -> None:
    lost = end("worker:0", Cause.PEER_LOST)
    assert blamed(lost, frozen("worker:1", **facts)) == "worker:0"


def test_a_primary_cause_outranks_who_was_frozen() -> None:
    crashed = end("worker:2", Cause.KILLED_BY_SIGNAL, signal=11)
    ends = (end("worker:0", Cause.PEER_LOST), frozen("worker:1"), crashed)
    assert blamed(*ends) == "worker:2"
