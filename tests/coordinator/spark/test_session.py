"""How the driver follows a run: whoever waits is told, whatever happens to the watch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from coordinator.core.errors import CoordinatorUnavailable, UnknownRun
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberId,
    MemberPhase,
    MemberView,
    Proof,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
    TaskState,
)
from coordinator.spark import session as session_module
from coordinator.spark.jobs import MemberJobs, MemberRow
from coordinator.spark.session import RunSession
from executor_agent.spark_task import MemberTask
from tests.coordinator.spark.fake_spark import FakeSpark

WORKER = MemberId.parse("worker:0")
TASK = MemberTask(("worker:0",), "run", "h:1", "token", b"", {}, (), 1.0)
FORMING = RunView(
    RunId("run"),
    RunSpec(Roles(worker=1), name="mnist"),
    RunPhase.FORMING,
    0,
    (MemberView(WORKER, MemberPhase.EXPECTED, 0.0),),
    0.0,
    1,
)
SUCCEEDED = replace(FORMING, phase=RunPhase.SUCCEEDED, settled=True)
Script = Callable[[], Iterator[RunView]]


class Client:
    """A `RunClient` whose watch the test plays; what it was told."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.scheduling: list[dict[MemberId, TaskState]] = []
        self.restarts: list[int] = []
        self.ends: list[Any] = []
        self.stops: list[Any] = []
        self.stop_errors: list[Exception] = []
        self.told = threading.Event()
        self.stopped = threading.Event()

    def stop(self, *stop: Any) -> None:
        if self.stop_errors:
            raise self.stop_errors.pop()
        self.stops.append(stop)
        self.stopped.set()

    def watch(self, run_id: RunId) -> Iterator[RunView]:
        return self._script()

    def report_scheduling(self, run_id: RunId, slots: Any, tasks: Any, restarts: int) -> None:
        self.scheduling.append(dict(tasks))
        self.restarts.append(restarts)
        self.told.set()

    def report_task_end(self, *end: Any) -> None:
        self.ends.append(end)


def follow(
    script: Script, show: Callable[[RunView], object] | None = None, spark: FakeSpark | None = None
) -> tuple[RunSession, Client, FakeSpark]:
    client, spark = Client(script), spark or FakeSpark()
    session = RunSession(client, FORMING, show)  # type: ignore[arg-type]
    jobs = MemberJobs(spark, "run", "mnist", session.task_returned, session.task_failed)
    session.start(jobs)
    return session, client, spark


def until(end: threading.Event, run: RunView = FORMING) -> Script:
    """The run stays as it is until ``end`` is set."""

    def script() -> Iterator[RunView]:
        yield run
        assert end.wait(10)
        yield SUCCEEDED

    return script


def is_terminal(run: RunView) -> bool:
    return run.phase.is_terminal


def test_who_waits_for_a_picture_gets_it() -> None:
    seen: list[RunView] = []
    session, _, _ = follow(lambda: iter((FORMING, SUCCEEDED)), seen.append)
    assert session.wait_for(is_terminal, 10)
    session.close(10)
    assert seen == [FORMING, SUCCEEDED]
    assert (session.view, session.lost) == (SUCCEEDED, None)


def test_a_wait_ends_at_its_time() -> None:
    end = threading.Event()
    session, _, _ = follow(until(end))
    assert not session.wait_for(is_terminal, 0.01)
    assert not session.wait_for(is_terminal, 0.0)
    end.set()
    assert session.wait_for(is_terminal, 10)
    session.close(10)


def test_a_run_that_is_not_followed_yet_is_not_waited_for() -> None:
    """R7: Ctrl-C before the first job was a minute of silence."""
    session = RunSession(Client(lambda: iter(())), FORMING, None)  # type: ignore[arg-type]
    assert not session.wait_for(is_terminal, 60)
    assert not session.wait_for(is_terminal, None)
    assert session.wait_for(lambda run: run.phase is RunPhase.FORMING, 60)


def test_for_ever_is_a_time_too() -> None:
    session, _, _ = follow(lambda: iter((SUCCEEDED,)))
    assert session.wait_for(is_terminal, float("inf"))
    session.close(10)


def unavailable() -> Iterator[RunView]:
    yield FORMING
    raise CoordinatorUnavailable("UNAVAILABLE: connection refused")


def a_bug() -> Iterator[RunView]:
    yield FORMING
    raise KeyError("a bug")


def test_a_coordinator_that_is_gone_ends_the_wait_and_the_jobs() -> None:
    """Durability is the daemon's: the run cannot go on."""
    spark = FakeSpark()
    session, _, _ = follow(unavailable, spark=spark)
    assert session.wait_for(is_terminal, 10)
    assert "the coordinator of run 'mnist' is gone (UNAVAILABLE" in str(session.lost)
    session.close(10)


@pytest.mark.parametrize("script", [a_bug, lambda: iter((FORMING,)), lambda: iter(())])
def test_nobody_waits_for_ever_for_a_watch_that_has_ended(script: Script) -> None:
    session, _, _ = follow(script)
    assert session.wait_for(is_terminal, 10)
    assert isinstance(session.lost, CoordinatorUnavailable)
    session.close(10)


def test_nobody_waits_for_ever_for_a_run_that_was_shut_down() -> None:
    """One thread waits for the run, another one shuts it down, and a member is frozen."""
    closed = threading.Event()

    def script() -> Iterator[RunView]:
        yield FORMING
        assert closed.wait(10)
        raise CoordinatorUnavailable("channel closed")

    session, _, _ = follow(script)
    waited: list[bool] = []
    waiting = threading.Thread(target=lambda: waited.append(session.wait_for(is_terminal, None)))
    waiting.start()
    session.close(0.0)
    closed.set()
    waiting.join(10)
    assert waited == [True]
    assert "was shut down before its end was known" in str(session.lost)
    session.close(10)


@pytest.mark.parametrize("error", [ValueError("on purpose"), SystemExit(1)])
def test_a_display_that_fails_is_switched_off_and_nothing_else(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """R7: nor does `sys.exit` in it end anything."""
    calls: list[RunView] = []

    def show(run: RunView) -> None:
        calls.append(run)
        raise error

    with caplog.at_level(logging.WARNING, "tflease"):
        session, _, _ = follow(lambda: iter((FORMING, FORMING, SUCCEEDED)), show)
        assert session.wait_for(is_terminal, 10)
        session.close(10)
    assert len(calls) == 1
    assert ["switched off" in message for message in caplog.messages] == [True]


def test_a_callback_may_close_the_session_that_calls_it() -> None:
    """`cluster.shutdown()` in a progress callback: a thread cannot wait for itself."""
    done = threading.Event()
    sessions: list[RunSession] = []
    started = threading.Event()

    def show(run: RunView) -> None:
        assert started.wait(10)
        sessions[0].close(10)
        done.set()

    session, _, _ = follow(lambda: iter((SUCCEEDED,)), show)
    sessions.append(session)
    started.set()
    assert done.wait(10)
    session.close(10)


def row(report: ExitReport | None, refusal: str | None = None) -> MemberRow:
    return MemberRow(WORKER, "7-a", refusal, report, None)


def test_a_proof_that_came_by_way_of_spark_is_passed_on() -> None:
    session, client, _ = follow(lambda: iter((SUCCEEDED,)))
    report = ExitReport(Cause.COMPLETED, proof=Proof.KERNEL)
    session.task_returned(row(report))
    assert client.ends == [("run", WORKER, "7-a", report)]
    session.close(10)


@pytest.mark.parametrize("refusal", ["no directory for the member", None])
def test_a_task_without_a_member_has_failed(refusal: str | None) -> None:
    session, client, _ = follow(lambda: iter((SUCCEEDED,)))
    session.task_returned(row(None, refusal))
    expected = TaskState(failed=True, message=refusal or "it returned nothing")
    assert client.scheduling == [{WORKER: expected}]
    session.close(10)


def test_a_failed_task_is_told_even_when_the_session_was_stopped() -> None:
    """R6: its jobs fail just because of that, and the coordinator must hear of it."""
    session, client, spark = follow(lambda: iter((SUCCEEDED,)))
    spark.stop()
    session.task_failed(WORKER, "SparkContext was shut down")
    assert client.scheduling[0][WORKER].message == "SparkContext was shut down"
    session.close(10)


def test_what_spark_says_of_missing_members_is_told_while_the_gang_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R1: and a task that was given up stays given up."""
    monkeypatch.setattr(session_module, "_SCHEDULING_INTERVAL", 0.01)
    end = threading.Event()
    session, client, _ = follow(until(end))
    assert client.told.wait(10)
    assert client.scheduling[0] == {WORKER: TaskState(running=False)}
    session.task_failed(WORKER, "gave up")
    client.told.clear()
    assert client.told.wait(10)
    assert client.scheduling[-1][WORKER].failed
    end.set()
    session.close(10)


def test_a_task_that_ended_because_its_member_lives_on_is_no_end_and_no_failure() -> None:
    """Its agent tells how the member fares."""
    session, client, _ = follow(lambda: iter((SUCCEEDED,)))
    session.task_returned(MemberRow(WORKER, "7-a", None, None, None, handed_over=True))
    session.close(10)
    assert (client.ends, client.scheduling) == ([], [])


def test_of_a_spark_that_does_not_say_what_runs_nothing_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spark Connect: "not scheduled" would be a guess."""
    monkeypatch.setattr(session_module, "_SCHEDULING_INTERVAL", 0.01)
    end = threading.Event()
    client, spark = Client(until(end)), FakeSpark(tells=False)
    session = RunSession(client, FORMING, None)  # type: ignore[arg-type]
    jobs = MemberJobs(spark, "run", "mnist", session.task_returned, session.task_failed)
    jobs.submit([WORKER], TASK)
    session.start(jobs)
    assert client.told.wait(10)
    end.set()
    session.close(10)
    assert client.scheduling[0] == {}
    jobs.cancel()
    assert jobs.join(10)


def test_a_stop_that_nobody_heard_is_said_again_when_somebody_is_there() -> None:
    """A daemon may be away when its user stops the run."""
    client, spark = Client(lambda: iter((FORMING, SUCCEEDED))), FakeSpark()
    client.stop_errors = [CoordinatorUnavailable("away")]
    session = RunSession(client, FORMING, None)  # type: ignore[arg-type]
    jobs = MemberJobs(spark, "run", "mnist", session.task_returned, session.task_failed)
    session.stop("enough", 2.0)
    assert client.stops == []
    session.start(jobs)
    assert session.wait_for(is_terminal, 10)
    session.close(10)
    assert client.stops == [("run", "enough", 2.0)]


def test_a_stop_that_failed_is_said_again_though_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call may time out while the stream lives on, and a run at work changes seldom."""
    monkeypatch.setattr(session_module, "_SCHEDULING_INTERVAL", 0.01)
    end = threading.Event()
    session, client, _ = follow(until(end, replace(FORMING, phase=RunPhase.RUNNING)))
    assert session.wait_for(lambda run: run.phase is RunPhase.RUNNING, 10)
    client.stop_errors = [CoordinatorUnavailable("DEADLINE_EXCEEDED")]
    session.stop("enough", None)
    assert client.stopped.wait(10)
    assert client.stops == [("run", "enough", None)]
    end.set()
    session.close(10)


@pytest.mark.parametrize("active, running", [(1, False), (2, True)])
def test_members_that_share_a_job_are_not_taken_for_one_another(
    monkeypatch: pytest.MonkeyPatch, active: int, running: bool
) -> None:
    """R1: beyond 64 members they do, and one that runs says nothing of one without a slot."""
    monkeypatch.setattr(session_module, "_SCHEDULING_INTERVAL", 0.01)
    there = MemberId.parse("worker:1")
    members = (*FORMING.members, MemberView(there, MemberPhase.RESERVED, 0.0))
    end = threading.Event()
    client, spark = Client(until(end, replace(FORMING, members=members))), FakeSpark()
    spark.active = active
    session = RunSession(client, replace(FORMING, members=members), None)  # type: ignore[arg-type]
    jobs = MemberJobs(spark, "run", "mnist", session.task_returned, session.task_failed)
    jobs.submit([WORKER, there], TASK)
    session.start(jobs)
    assert client.told.wait(10)
    assert client.scheduling[0] == {WORKER: TaskState(running=running)}
    end.set()
    session.close(10)
    jobs.cancel()
    assert jobs.join(10)


def test_stopping_a_run_that_the_coordinator_has_forgotten_is_no_error() -> None:
    session, client, _ = follow(lambda: iter((SUCCEEDED,)))
    client.stop_errors = [UnknownRun("no such run")]
    session.stop("enough", None)
    session.close(10)
    assert client.stops == []


def test_closing_before_the_start_is_closing() -> None:
    RunSession(Client(lambda: iter(())), FORMING, None).close(10)  # type: ignore[arg-type]
