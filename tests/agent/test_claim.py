"""A member's claim, and what becomes of the member by what is left of those it names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from coordinator.core.model import Cause, MemberId, Proof
from coordinator.core.verdict import Observed, sentence
from executor_agent.core.claim import Claim, Place, Standing, State, Who, standing
from executor_agent.core.supervision import ExitFacts
from executor_agent.report import exit_report

HERE = Place("this boot", "this host", 7)
SENTINEL, TASK, EXECUTOR = (10, 1.0), (11, 1.1), (12, 1.2)

CLAIM = Claim(
    member="worker:1",
    run_id="run",
    incarnation="a",
    marker="run/worker:1/a",
    directory="/data/run/worker-1.a",
    boot_id=HERE.boot_id,
    claimed_at=1000.0,
    processes={"sentinel": SENTINEL, "agent": (13, 1.3), "member": (14, 1.4)},
    anchors={"task": TASK, "executor": EXECUTOR},
    pipe=99,
    host=HERE.host,
    namespace=HERE.namespace,
)


def judged(claim: Claim = CLAIM, here: Place = HERE, **states: State) -> Standing:
    """Who is not named runs."""
    by_name: Mapping[str, Who] = {**claim.processes, **claim.anchors}
    named = {by_name[name]: state for name, state in states.items()}
    return standing(claim, here, lambda who: named.get(who, "runs"))


def test_it_reads_what_it_has_written() -> None:
    assert Claim.from_json(CLAIM.to_json()) == CLAIM


def test_what_a_newer_version_adds_is_ignored() -> None:
    assert Claim.from_json(json.dumps({**json.loads(CLAIM.to_json()), "new": 1})) == CLAIM


def test_a_claim_that_does_not_say_where_it_was_made_can_be_read() -> None:
    raw = json.loads(CLAIM.to_json())
    del raw["host"], raw["namespace"]
    assert Claim.from_json(json.dumps(raw)) == CLAIM.replace(host="", namespace=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"marker": None},
        {"marker": ""},
        {"directory": 5},
        {"directory": "relative"},
        {"boot_id": ["x"]},
        {"pipe": "7"},
        {"claimed_at": None},
        {"processes": []},
        {"processes": {"sentinel": 5}},
        {"processes": {"sentinel": ["x", 1.0]}},
        {"processes": {"sentinel": [float("inf"), 1.0]}},
        {"anchors": {"task": [1]}},
    ],
)
def test_a_broken_claim_is_refused(changes: dict[str, Any]) -> None:
    """An agent reads them all at its start: one file must not cost it its member."""
    with pytest.raises(ValueError):
        Claim.from_json(json.dumps({**json.loads(CLAIM.to_json()), **changes}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", b"\xff\xfe", '{"member": "worker:1"'])
def test_what_is_no_claim_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        Claim.from_json(text)


def test_it_lives_while_its_sentinel_does() -> None:
    assert judged() is Standing.LIVES


def test_it_lives_while_its_sentinel_can_act_whoever_else_is_gone() -> None:
    """That one is just about to stop it, and it leaves the better proof."""
    gone = dict.fromkeys(("task", "executor", "agent", "member"), "gone")
    assert judged(**gone) is Standing.LIVES  # type: ignore[arg-type]


def test_it_is_abandoned_once_its_sentinel_is_gone() -> None:
    assert judged(sentinel="gone") is Standing.ABANDONED


def test_it_is_abandoned_when_its_claim_names_no_sentinel() -> None:
    assert judged(CLAIM.replace(processes={})) is Standing.ABANDONED


@pytest.mark.parametrize("anchor", ["task", "executor"])
def test_a_stopped_sentinel_hangs_once_any_anchor_is_gone(anchor: str) -> None:
    states: dict[str, State] = {"sentinel": "stopped", anchor: "gone"}
    assert judged(**states) is Standing.HUNG


def test_a_stopped_sentinel_whose_anchors_are_there_is_waited_for() -> None:
    assert judged(sentinel="stopped", task="stopped") is Standing.LIVES


def test_after_a_reboot_nobody_of_it_can_be_left() -> None:
    rebooted = HERE.replace(boot_id="the next boot", namespace=8)
    assert judged(here=rebooted) is Standing.EARLIER_BOOT


def test_another_host_that_shares_the_directory_is_no_earlier_boot() -> None:
    there = Place("its boot", "another host", 7)
    assert judged(here=there, sentinel="gone") is Standing.ELSEWHERE


def test_another_boot_of_a_host_that_is_not_known_is_not_judged() -> None:
    unknown = CLAIM.replace(host="")
    assert judged(unknown, HERE.replace(boot_id="b", host="")) is Standing.ELSEWHERE


def test_a_container_does_not_judge_by_the_numbers_of_another() -> None:
    assert judged(here=HERE.replace(namespace=8), sentinel="gone") is Standing.ELSEWHERE


@pytest.mark.parametrize(
    "claim, here",
    [
        (CLAIM.replace(namespace=0), HERE),
        (CLAIM, HERE.replace(namespace=0)),
    ],
)
def test_where_namespaces_cannot_be_told_the_boot_decides(claim: Claim, here: Place) -> None:
    assert judged(claim, here, sentinel="gone") is Standing.ABANDONED


@pytest.mark.parametrize("why", [Standing.ABANDONED, Standing.HUNG, Standing.EARLIER_BOOT])
def test_a_run_that_hears_of_it_hears_that_its_task_was_lost(why: Standing) -> None:
    """Whoever sweeps may be quicker than the task, which then returns its tombstone: the words have
    to fit into the driver's error (E2)."""
    facts = ExitFacts(
        member="worker:1",
        run_id="run",
        incarnation="a",
        pid=None,
        exit_code=None,
        signal=None,
        killed_by_us=False,
        reason=f"{why.value}; swept by tflease reap",
        survivors=(),
        proof="sweep",
        max_rss_bytes=0,
        user_seconds=0.0,
        system_seconds=0.0,
        stop_seconds=0.0,
        ended_at=1.0,
    )
    report = exit_report(facts, None, stop_asked=False, log_tail="", oom="unknown")
    assert (report.cause, report.proof) == (Cause.PREEMPTED, Proof.SWEEP)
    text = sentence(Observed(MemberId.parse("worker:1"), report, None, after_stop=False))
    assert text == f"worker:1 lost its Spark task ({why.value}; swept by tflease reap)"
