"""Restarts as the driver sees them: a real coordinator process, fake members, no Spark."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from coordinator import RestartPolicy, RunCancelled, TrainingFailed
from coordinator.core.model import Cause, ExitReport, Proof, RunPhase, RunView
from coordinator.testing import Script
from tests.coordinator.spark.fake_members import SERVES, playing, run
from tests.coordinator.spark.fake_spark import FakeSpark, Job, Row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KILLED = Script(report=ExitReport(Cause.KILLED_BY_SIGNAL, signal=9, proof=Proof.KERNEL))
WELL = Script()
AT_ONCE = RestartPolicy(max_restarts=2, backoff=0.0)


class Plays:
    """What the jobs of each member do, one after the other; the last one again and again."""

    def __init__(self, plays: Mapping[str, list[Callable[[Job], list[Row]]]]) -> None:
        self._plays = plays
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __call__(self, job: Job) -> list[Row]:
        (member,) = job.task.members
        with self._lock:
            number = self.counts[member]
            self.counts[member] += 1
        plays = self._plays[member]
        return plays[min(number, len(plays) - 1)](job)


def breaks(text: str) -> Callable[[Job], list[Row]]:
    def work(job: Job) -> list[Row]:
        raise RuntimeError(text)

    return work


def run_with(
    plays: Mapping[str, list[Any]], policy: RestartPolicy = AT_ONCE, **more: Any
) -> tuple[Any, Plays]:
    played = Plays(
        {
            member: [playing(each) if isinstance(each, Script) else each for each in scripts]
            for member, scripts in plays.items()
        }
    )
    return run(FakeSpark(played), restart=policy, **more), played


def failing(plays: Mapping[str, list[Any]], policy: RestartPolicy = AT_ONCE) -> str:
    """What `TrainingFailed` says."""

    def train() -> None:
        cluster, _ = run_with(plays, policy)
        with cluster:
            cluster.wait(60)

    with pytest.raises(TrainingFailed) as caught:
        train()
    return str(caught.value)


def test_members_come_back_in_new_jobs_and_what_they_return_is_of_the_last_generation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """worker:0 has completed in the first generation as well: that is no result."""
    with caplog.at_level(logging.WARNING, "tflease"):
        cluster, played = run_with({"worker:0": [WELL], "worker:1": [KILLED, WELL]})
        with cluster:
            result = cluster.wait(60)
    assert result.returned == {"worker:0": "worker:0", "worker:1": "worker:1"}
    assert played.counts == {"worker:0": 2, "worker:1": 2}
    assert result.generations == 2
    (restart,) = result.restarts
    assert (restart.generation, str(restart.member)) == (1, "worker:1")
    assert cluster.status().restarts == result.restarts
    (warning,) = [text for text in caplog.messages if "restart 1" in text]
    assert "(generation 1, step 0): worker:1" in warning
    assert "was killed by signal 9" in warning


def test_without_a_policy_the_same_failure_is_the_end() -> None:
    story = failing({"worker:0": [SERVES], "worker:1": [KILLED]}, RestartPolicy(max_restarts=0))
    assert "was killed by signal 9" in story
    assert "Restarts before" not in story


def test_a_run_that_gets_nowhere_tells_its_whole_story() -> None:
    story = failing({"worker:0": [SERVES], "worker:1": [KILLED]})
    assert "after 2 restarts, 2 in a row without a new step or checkpoint" in story
    before = story.partition("--- Restarts before ---")[2]
    assert [line[:23] for line in before.split("\n") if line.startswith("restart")] == [
        "restart 1 (generation 1",
        "restart 2 (generation 2",
    ]
    assert "generation 1, restarted" not in story, "told once"


def test_jobs_that_bring_no_member_end_the_run_with_the_reason() -> None:
    """Three for each member and restart."""
    broken = breaks("No module named 'pyarrow'")
    story = failing({"worker:0": [SERVES], "worker:1": [KILLED, broken]})
    assert "Spark gave up the task of worker:1: No module named 'pyarrow'" in story


def test_a_job_that_fails_by_itself_is_answered_with_another_one() -> None:
    lost = breaks("Job aborted due to stage failure: ExecutorLostFailure")
    cluster, played = run_with({"worker:0": [SERVES, WELL], "worker:1": [KILLED, lost, WELL]})
    with cluster:
        assert cluster.wait(60).generations == 2
    assert played.counts["worker:1"] == 3


def test_a_job_that_dies_before_the_first_start_is_answered_with_another_one() -> None:
    """It costs the one restart that there is."""
    lost = breaks("Job aborted due to stage failure: ExecutorLostFailure")
    policy = RestartPolicy(max_restarts=1)
    cluster, played = run_with({"worker:0": [SERVES], "worker:1": [lost, SERVES]}, policy)
    with cluster:
        (restart,) = cluster.status().restarts
        assert (restart.cause, str(restart.member)) == (Cause.PREEMPTED, "worker:1")
        assert (restart.alone, cluster.status().generation) == (True, 1)
    assert played.counts == {"worker:0": 1, "worker:1": 2}


def test_without_a_policy_a_job_that_dies_before_the_first_start_is_the_end() -> None:
    lost = breaks("Job aborted due to stage failure: ExecutorLostFailure")
    plays = {"worker:0": [SERVES], "worker:1": [lost, SERVES]}
    assert "ExecutorLostFailure" in failing(plays, RestartPolicy(max_restarts=0))


def cancelled_by_the_user(job: Job) -> list[Row]:
    raise RuntimeError("[SPARK_JOB_CANCELLED] Job 3 cancelled part of cancelled job tags cell-7")


def test_a_job_that_the_user_has_cancelled_ends_the_run() -> None:
    """O1: a notebook's cell was interrupted; nothing may start again behind its back."""
    plays = {"worker:0": [SERVES], "worker:1": [KILLED, cancelled_by_the_user]}

    def train() -> None:
        cluster, _ = run_with(plays)
        with cluster:
            cluster.wait(60)

    with pytest.raises(RunCancelled, match="the Spark job of worker:1 was cancelled: ") as caught:
        train()
    assert "cell-7" in str(caught.value)


def test_stopping_a_run_that_waits_for_its_restart_stops_it() -> None:
    """In the pause before it nobody is there who could be told."""
    policy = RestartPolicy(max_restarts=3, backoff=3600.0, max_backoff=3600.0)
    gate, pauses = threading.Event(), threading.Event()

    def show(view: RunView) -> None:
        if view.restart_at is not None and view.restart_count == 2:
            pauses.set()

    killed = playing(KILLED, gate=gate)
    cluster, played = run_with(
        {"worker:0": [SERVES], "worker:1": [KILLED, killed]}, policy, progress=show
    )
    with cluster:
        assert cluster.status().restart_count == 1, "run returns when all are there"
        gate.set()
        assert pauses.wait(60)
        cluster.stop("enough")
        with pytest.raises(RunCancelled, match="enough"):
            cluster.wait(60)
    assert played.counts["worker:1"] == 2


def test_shutting_down_a_run_that_waits_for_its_restart_leaves_nothing() -> None:
    policy = RestartPolicy(max_restarts=3, backoff=3600.0, max_backoff=3600.0)
    gate, pauses = threading.Event(), threading.Event()

    def show(view: RunView) -> None:
        if view.restart_at is not None and view.restart_count == 2:
            pauses.set()

    killed = playing(KILLED, gate=gate)
    cluster, played = run_with(
        {"worker:0": [SERVES], "worker:1": [KILLED, killed]}, policy, progress=show
    )
    gate.set()
    assert pauses.wait(60)
    cluster.shutdown()
    assert cluster.status().phase is RunPhase.CANCELLED
    assert played.counts["worker:1"] == 2
