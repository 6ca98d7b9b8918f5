"""What comes out of a run: values, or an exception that tells the whole story (E1, E2)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import cloudpickle
import pytest

from coordinator.core.errors import (
    ReleaseUnproven,
    ReservationTimeout,
    RunCancelled,
    TrainingFailed,
)
from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    Failure,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    Proof,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark import results
from coordinator.spark.jobs import MemberJobs, MemberRow
from coordinator.testing import FakeGang, ManualClock, serving
from tests.coordinator.spark.fake_spark import FakeSpark

HOST = ExecutorInfo("host-a", boot_id="b", pid=1, executor_id="3", directory="/tmp/tflease-0/run/x")
COMPLETED = ExitReport(Cause.COMPLETED, exit_code=0, proof=Proof.KERNEL)
RAISED = ExitReport(
    Cause.USER_EXCEPTION,
    exit_code=1,
    exception_type="ValueError",
    message="bad labels",
    traceback="Traceback (most recent call last):\n  ...\nValueError: bad labels\n",
    log_tail="epoch 1\nTraceback (most recent call last):\n  ...\nValueError: bad labels",
    proof=Proof.KERNEL,
)
KILLED = ExitReport(
    Cause.KILLED_BY_SIGNAL, signal=9, log_tail="epoch 1\nepoch 2", proof=Proof.KERNEL
)


def member(
    name: str, exit: ExitReport | None = COMPLETED, phase: MemberPhase = MemberPhase.EXITED
) -> MemberView:
    return MemberView(
        MemberId.parse(name), phase, 0.0, IncarnationId("1"), executor=HOST, exit=exit
    )


def run_of(*members: MemberView, phase: RunPhase = RunPhase.SUCCEEDED, **more: Any) -> RunView:
    spec = RunSpec(Roles(worker=2), name="mnist")
    return RunView(RunId("run"), spec, phase, 1, members, 0.0, 1, settled=True, **more)


def failed(exit: ExitReport, *others: str, cause: Cause | None = None) -> RunView:
    worker = member("worker:1", exit)
    failure = Failure(cause or exit.cause, "worker:1 failed somehow", worker.id, exit, others)
    return run_of(member("worker:0"), worker, phase=RunPhase.FAILED, failure=failure)


def jobs_with(*rows: MemberRow, failures: dict[str, str] | None = None) -> MemberJobs:
    jobs = MemberJobs(FakeSpark(), "run", "mnist", print, print)
    jobs._rows = {row.member: [row] for row in rows}
    jobs._failures = {MemberId.parse(name): text for name, text in (failures or {}).items()}
    return jobs


def row(name: str, result: bytes | None) -> MemberRow:
    return MemberRow(MemberId.parse(name), "1", None, COMPLETED, result)


# -- the values ------------------------------------------------------------------------------


def test_what_the_members_returned_is_found_by_name() -> None:
    run = run_of(member("worker:0"), member("worker:1"))
    rows = (row("worker:0", cloudpickle.dumps({"loss": 0.5})), row("worker:1", None))
    result = results.collect(run, jobs_with(*rows), 12.5)
    assert result["worker:0"] == {"loss": 0.5}
    assert result["worker:1"] is None
    assert (result.run_id, result.name, result.seconds) == ("run", "mnist", 12.5)


def test_a_member_that_was_stopped_has_returned_nothing() -> None:
    stopped = ExitReport(Cause.STOPPED, signal=15, proof=Proof.KERNEL)
    run = run_of(member("worker:0"), member("ps:0", stopped))
    result = results.collect(run, jobs_with(row("worker:0", None), row("ps:0", None)), 1.0)
    assert "ps:0" not in result.returned
    with pytest.raises(KeyError, match="ps:0: its main_fun had not returned"):
        result["ps:0"]
    with pytest.raises(KeyError, match="ps:7: the run has no such member"):
        result["ps:7"]


def test_a_member_that_was_handed_over_says_why_its_result_is_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was asked for, so nobody is warned."""
    run = run_of(member("worker:0"))
    handed_over = MemberRow(MemberId.parse("worker:0"), "1", None, None, None, handed_over=True)
    with caplog.at_level(logging.WARNING, "tflease"):
        result = results.collect(run, jobs_with(handed_over), 1.0)
    assert result.returned == {}
    assert caplog.messages == []
    with pytest.raises(KeyError, match='does not come back with anchor="executor"'):
        result["worker:0"]


def test_a_result_that_did_not_come_back_is_missing_and_not_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A result over spark.driver.maxResultSize, or an executor that was lost after the end."""
    run = run_of(member("worker:0"), member("worker:1"))
    jobs = jobs_with(failures={"worker:0": "bigger than spark.driver.maxResultSize"})
    with caplog.at_level(logging.WARNING, "tflease"):
        result = results.collect(run, jobs, 1.0)
    assert result.returned == {}
    with pytest.raises(KeyError, match=r"has not come back: bigger than spark\.driver"):
        result["worker:0"]
    first, second = caplog.messages
    assert first == (
        "what worker:0 returned has not come back: bigger than spark.driver.maxResultSize"
    )
    assert "worker:1 returned has not come back: its Spark task has not ended yet" in second


class NotHere:
    def __reduce__(self) -> Any:
        return __import__, ("a_module_of_the_executors",)


def test_a_result_of_a_class_that_the_driver_lacks_costs_only_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The training went well, and the others' results are there."""
    run = run_of(member("worker:0"), member("worker:1"))
    rows = (
        row("worker:0", cloudpickle.dumps(NotHere())),
        row("worker:1", cloudpickle.dumps(1)),
    )
    with caplog.at_level(logging.WARNING, "tflease"):
        assert results.collect(run, jobs_with(*rows), 1.0).returned == {"worker:1": 1}
    [message] = caplog.messages
    assert "worker:0 returned cannot be unpickled here: ModuleNotFoundError" in message


def test_a_result_that_could_not_be_pickled_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The executor's log has said so, where nobody looks."""
    text = "what main_fun returned was not kept: a lock cannot be pickled"
    run = run_of(member("worker:0", replace(COMPLETED, message=text)))
    with caplog.at_level(logging.WARNING, "tflease"):
        assert results.collect(run, jobs_with(row("worker:0", None)), 1.0)["worker:0"] is None
    assert caplog.messages == [f"worker:0: {text}"]


# -- the errors ------------------------------------------------------------------------------


def test_a_run_that_went_well_has_no_error() -> None:
    assert results.error_of(run_of(member("worker:0"))) is None


def test_a_failure_carries_itself_and_its_story() -> None:
    """E2."""
    run = failed(RAISED, "worker:0 lost a peer")
    error = results.error_of(run)
    assert type(error) is TrainingFailed
    assert error.failure is run.failure
    assert str(error) == story(run)


@pytest.mark.parametrize("phase", [RunPhase.CANCELLED, RunPhase.STOPPING])
def test_a_cancelled_run_says_who_wanted_it(phase: RunPhase) -> None:
    halfway = member("worker:0", ExitReport(Cause.STOPPED), MemberPhase.STOPPED)
    error = results.error_of(run_of(halfway, phase=phase, stop_reason="enough"))
    assert type(error) is RunCancelled
    assert str(error) == "run 'mnist' was stopped: enough"


def test_a_complete_run_that_still_waits_for_a_lost_ps_was_not_cancelled() -> None:
    done = run_of(member("worker:0"), phase=RunPhase.STOPPING, stop_reason="training is complete")
    assert results.error_of(done) is None


async def test_a_gang_that_does_not_form_in_time_is_a_timeout() -> None:
    """R1: as the coordinator really says it."""
    clock = ManualClock()
    async with serving(clock=clock) as coordinator:
        spec = RunSpec(Roles(worker=2), reservation_timeout=60.0)
        run_id = coordinator.create_run(spec)
        address, token = coordinator.address, coordinator.token
        async with FakeGang(address, token, run_id, spec.roles, beating=False) as gang:
            await gang.form(without=["worker:1"])
            await gang.pass_time(clock, 60.0, silent=["worker:1"])
            await gang["worker:0"].end(replace(COMPLETED, cause=Cause.STOPPED))
        run = await coordinator.ended(run_id)
    error = results.error_of(run)
    assert type(error) is ReservationTimeout
    assert isinstance(error, TimeoutError)
    assert "worker:1: task not scheduled" in str(error)


# -- the story -------------------------------------------------------------------------------


def story(run: RunView) -> str:
    assert run.failure is not None
    return results.story(run, run.failure)


def test_the_story_begins_with_the_first_cause() -> None:
    """E1, E2: then its traceback, its log, the others, and where its files are."""
    text = story(failed(RAISED, "worker:0 lost a peer"))
    assert text == (
        "run 'mnist' failed: worker:1 failed somehow\n"
        "\n--- Traceback on the executor ---\n"
        "Traceback (most recent call last):\n  ...\nValueError: bad labels\n"
        "\n--- Last lines of the log of worker:1 ---\n"
        "epoch 1\n(the traceback above)\n"
        "\n--- Other members ---\n"
        "worker:0 lost a peer\n"
        "\n--- Its files ---\n"
        "worker:1: /tmp/tflease-0/run/x on host-a (executor 3)"
    )


def test_without_a_traceback_the_log_is_told_as_it_is() -> None:
    """E1: a process that was killed leaves only its log."""
    text = story(failed(KILLED))
    assert "Traceback" not in text
    assert "--- Last lines of the log of worker:1 ---\nepoch 1\nepoch 2\n" in text


def test_empty_sections_are_left_out() -> None:
    text = story(failed(replace(KILLED, log_tail=" \n")))
    assert "---" not in text.replace("--- Its files ---", "")


def test_of_many_others_a_few_are_named_and_the_rest_counted() -> None:
    text = story(failed(KILLED, *(f"worker:{number} lost a peer" for number in range(100))))
    assert "worker:9 lost a peer\n... and 90 more" in text
    assert "worker:10 lost a peer" not in text


def test_a_failure_of_nobody_has_no_member_to_tell_of() -> None:
    run = run_of(member("worker:0"), phase=RunPhase.FAILED)
    failure = Failure(Cause.GANG_INCOMPLETE, "worker:1: task not scheduled")
    assert results.story(run, failure) == "run 'mnist' failed: worker:1: task not scheduled"


# -- the release -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        member("worker:1"),
        member("worker:1", replace(KILLED, proof=Proof.SWEEP)),
        member("worker:1", None, MemberPhase.STOPPED),
        member("worker:1", None, MemberPhase.EXPECTED),
        # Spark gave its task up before any agent came: there is nothing to prove.
        replace(member("worker:1", ExitReport(Cause.TASK_FAILED)), incarnation=None),
    ],
)
def test_what_is_proven_gone_is_released(found: MemberView) -> None:
    results.check_released(run_of(member("worker:0"), found))


def test_a_task_that_spark_still_lists_is_named() -> None:
    """R2: its slot is not free, whoever is in it."""
    with pytest.raises(ReleaseUnproven, match="Spark still lists an active task"):
        results.check_released(run_of(member("worker:0")), is_idle=False)


@pytest.mark.parametrize(
    "found, text",
    [
        (member("worker:1", None, MemberPhase.LOST), "its agent is not heard of any more"),
        (member("worker:1", None, MemberPhase.FENCED), "its agent is not heard of any more"),
        (member("worker:1", None, MemberPhase.RUNNING), "it was running when last heard of"),
        (
            member("worker:1", replace(KILLED, proof=Proof.NONE, survivors=("4711 python",))),
            "could not be killed: 4711 python",
        ),
        (
            member("worker:1", replace(KILLED, proof=Proof.NONE, reason="sentinel failed")),
            "nothing was proven (sentinel failed)",
        ),
    ],
)
def test_what_may_be_left_is_named_with_its_place(found: MemberView, text: str) -> None:
    """O10, O12: never a silence about it."""
    with pytest.raises(ReleaseUnproven) as caught:
        results.check_released(run_of(member("worker:0"), found))
    assert f"worker:1 on host-a (executor 3): {text}" in str(caught.value)
    assert "worker:0" not in str(caught.value)
    assert text in caught.value.metadata["left"]
