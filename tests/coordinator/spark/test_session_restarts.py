"""What the driver tells the coordinator of jobs and tasks once a run has been restarted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator.core.errors import ReleaseUnproven
from coordinator.core.model import (
    Cause,
    ExitReport,
    IncarnationId,
    MemberPhase,
    MemberView,
    Proof,
    Restart,
    RunPhase,
    RunView,
    TaskState,
)
from coordinator.spark import results
from coordinator.spark import session as session_module
from coordinator.spark.jobs import MemberJobs, MemberRow
from coordinator.spark.session import RunSession
from tests.coordinator.spark.fake_spark import FakeSpark
from tests.coordinator.spark.test_session import (
    FORMING,
    SUCCEEDED,
    TASK,
    WORKER,
    Client,
    follow,
    is_terminal,
    until,
)

COMPLETED = ExitReport(Cause.COMPLETED, proof=Proof.KERNEL)
RESTART = Restart(0.0, 1, Cause.KILLED_BY_SIGNAL, "worker:0 on host-a was killed", WORKER, step=40)
AGAIN = replace(FORMING, generation=1, restart_count=1, restarts=(RESTART,))


def at_work(phase: MemberPhase = MemberPhase.RUNNING) -> RunView:
    members = (MemberView(WORKER, phase, 0.0),)
    return replace(AGAIN, phase=RunPhase.RUNNING, generation=2, members=members)


def told_of_a_failed_job(run: RunView) -> tuple[list[TaskState], list[int]]:
    """What the coordinator hears of it, and of how many restarts."""
    end = threading.Event()
    session, client, _ = follow(until(end, run))
    assert session.wait_for(lambda seen: seen is run, 10)
    client.scheduling.clear()
    client.restarts.clear()
    session.task_failed(WORKER, "ExecutorLostFailure")
    found = [tasks[WORKER] for tasks in client.scheduling if WORKER in tasks]
    restarts = list(client.restarts)
    end.set()
    assert session.wait_for(is_terminal, 10)
    session.close(10)
    return [each for each in found if each.failed], restarts


@pytest.mark.parametrize(
    "run",
    [AGAIN, at_work(MemberPhase.EXPECTED), replace(FORMING, phase=RunPhase.RESTARTING)],
)
def test_a_job_that_is_answered_with_another_one_is_no_failure(run: RunView) -> None:
    assert told_of_a_failed_job(run) == ([], [])


def test_that_a_member_at_work_has_lost_its_task_is_told_at_any_time() -> None:
    """Spark says so seconds before the agent can know."""
    told, restarts = told_of_a_failed_job(at_work())
    assert [each.message for each in told] == ["ExecutorLostFailure"]
    assert restarts == [1]


def test_a_job_is_no_loss_while_another_one_of_the_member_goes_on() -> None:
    end = threading.Event()
    client, spark = Client(until(end, at_work())), FakeSpark()
    session = RunSession(client, FORMING, None)  # type: ignore[arg-type]
    jobs = MemberJobs(spark, "run", "mnist", session.task_returned, session.task_failed)
    jobs.submit([WORKER], TASK)
    session.start(jobs)
    assert session.wait_for(lambda run: run.phase is RunPhase.RUNNING, 10)
    session.task_failed(WORKER, "the other one")
    assert client.scheduling == []
    end.set()
    session.close(10)
    jobs.cancel()
    assert jobs.join(10)


def test_what_was_known_of_tasks_before_a_restart_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the loss that a restart has answered would end the next generation."""
    monkeypatch.setattr(session_module, "_SCHEDULING_INTERVAL", 0.01)
    restarted, end = threading.Event(), threading.Event()

    def script() -> Iterator[RunView]:
        yield replace(at_work(), restart_count=0, restarts=())
        assert restarted.wait(10)
        yield AGAIN
        assert end.wait(10)
        yield SUCCEEDED

    session, client, _ = follow(script)
    assert session.wait_for(lambda run: run.phase is RunPhase.RUNNING, 10)
    session.task_failed(WORKER, "lost")
    assert client.scheduling[-1][WORKER].failed
    restarted.set()
    assert session.wait_for(lambda run: run.restart_count == 1, 10)
    session.task_is_lost(WORKER, "of before", 0)
    client.told.clear()
    assert client.told.wait(10)
    assert client.scheduling[-1] == {WORKER: TaskState(running=False)}
    assert client.restarts[-1] == 1
    end.set()
    session.close(10)


def test_each_restart_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tflease"):
        session, _, _ = follow(lambda: iter((FORMING, AGAIN, AGAIN, at_work(), SUCCEEDED)))
        assert session.wait_for(is_terminal, 10)
        session.close(10)
    assert caplog.messages == [
        "run 'mnist': restart 1 (generation 1, step 40): worker:0 on host-a was killed"
    ]


def test_what_was_never_proven_of_an_earlier_generation_is_told_in_the_end() -> None:
    """O14: its slot was freed by its fence, and another attempt has taken it since."""
    lost = ExitReport(Cause.LOST_CONTACT, message="silent")
    gone = MemberView(WORKER, MemberPhase.FENCED, 0.0, IncarnationId("7-a"), exit=lost)
    fenced = replace(AGAIN, phase=RunPhase.RESTARTING, members=(gone,))
    done = replace(gone, phase=MemberPhase.EXITED, incarnation=IncarnationId("8-b"), exit=COMPLETED)
    session, _, _ = follow(lambda: iter((fenced, AGAIN, replace(SUCCEEDED, members=(done,)))))
    assert session.wait_for(is_terminal, 10)
    assert session.unproven == ["worker:0 on None: its agent is not heard of any more"]
    with pytest.raises(ReleaseUnproven, match="its agent is not heard of any more"):
        results.check_released(session.view, session.unproven)
    session.task_returned(MemberRow(WORKER, "7-a", None, COMPLETED, None))
    assert session.unproven == [], "a proof that comes late is one"
    session.close(10)


def test_what_is_left_of_the_last_generation_is_told_once() -> None:
    lost = ExitReport(Cause.LOST_CONTACT, message="silent")
    gone = MemberView(WORKER, MemberPhase.FENCED, 0.0, IncarnationId("7-a"), exit=lost)
    failed = replace(AGAIN, phase=RunPhase.FAILED, settled=True, members=(gone,))
    session, _, _ = follow(lambda: iter((failed,)))
    assert session.wait_for(is_terminal, 10)
    assert session.unproven == []
    session.close(10)
