"""A run's Spark jobs: what of an exception matters, and who hears of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from coordinator.core.model import Cause, ExitReport, MemberId, Proof
from coordinator.spark.gateway import Profile
from coordinator.spark.jobs import MemberJobs, MemberRow, Submitted, explain, is_cancellation
from executor_agent.spark_task import MemberTask
from tests.coordinator.spark.fake_spark import FakeSpark, Row

WORKER = MemberId.parse("worker:0")
ANOTHER = MemberId.parse("worker:1")
TASK = MemberTask(
    members=(),
    run_id="run",
    coordinator="127.0.0.1:1",
    token="token",
    payload=b"",
    grace={},
    preload=(),
    connect_timeout=1.0,
)
REPORT = ExitReport(Cause.COMPLETED, exit_code=0, proof=Proof.KERNEL)
PYTHON_TRACEBACK = """
An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/opt/spark/python/pyspark/serializers.py", line 460, in loads
    return cloudpickle.loads(obj, encoding=encoding)
ModuleNotFoundError: {}
"""


@pytest.mark.parametrize(
    "text, line, advice",
    [
        (
            PYTHON_TRACEBACK.format("No module named 'executor_agent'"),
            "ModuleNotFoundError: No module named 'executor_agent'",
            "tflease is not installed for the executors' Python",
        ),
        (
            PYTHON_TRACEBACK.format("No module named 'coordinator'"),
            "ModuleNotFoundError: No module named 'coordinator'",
            "tflease is not installed",
        ),
        (
            PYTHON_TRACEBACK.format("No module named 'pyarrow'"),
            "ModuleNotFoundError: No module named 'pyarrow'",
            "no pyarrow",
        ),
        (
            "x\n[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 than 3.11",
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 than 3.11",
            "another minor version",
        ),
        (
            'Job aborted\njava.io.IOException: Cannot run program "python4": error=2\n\tat java',
            'java.io.IOException: Cannot run program "python4": error=2',
            "PYSPARK_PYTHON",
        ),
    ],
)
def test_the_line_that_matters_comes_with_what_to_do(text: str, line: str, advice: str) -> None:
    """E2: not the first line of a Java stack."""
    found = explain(RuntimeError(text))
    assert found.startswith(line)
    assert advice in found


@pytest.mark.parametrize(
    "error, text",
    [
        (RuntimeError("\n\n  Job 3 cancelled \n\tat org.apache.spark"), "Job 3 cancelled"),
        (RuntimeError(""), "RuntimeError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (RuntimeError("x" * 10_000), "x" * 500),
    ],
)
def test_of_any_other_exception_the_first_line_is_told(error: Exception, text: str) -> None:
    assert explain(error) == text


LOST_FILE = """An error occurred while calling o272.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 3.0 failed
\tat org.apache.spark.scheduler.DAGScheduler
Caused by: org.apache.spark.SparkException: Exception thrown in awaitResult
Caused by: java.lang.RuntimeException: Stream '/files/examples.zip' was not found.
\tat org.apache.spark.network
"""


def test_of_an_exception_of_the_jvm_what_it_began_with_is_told() -> None:
    """E2: py4j's own first line names a call and nothing else."""
    assert explain(RuntimeError(LOST_FILE)) == (
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 3.0 "
        "failed Caused by: java.lang.RuntimeException: Stream '/files/examples.zip' was not found."
    )
    assert explain(RuntimeError("An error occurred while calling o1.x.")).startswith("An error")


def test_of_an_exception_of_a_python_worker_the_last_line_is_told() -> None:
    text = (
        "An exception was thrown from the Python worker. Please see the stack trace below.\n"
        'Traceback (most recent call last):\n  File "worker.py", line 1\n'
        "ModuleNotFoundError: No module named 'psutil'\n"
    )
    assert "ModuleNotFoundError: No module named 'psutil'" in explain(RuntimeError(text))


def test_without_a_cause_all_of_what_spark_says_is_told() -> None:
    said = "SparkException: Lost task on " + "x" * 300 + ": ExecutorLostFailure"
    text = f"An error occurred while calling o1.x.\n: {said}\n\tat org.apache.spark"
    assert explain(RuntimeError(text)) == said


class Heard:
    """What the listener of the jobs was told."""

    def __init__(self) -> None:
        self.rows: list[MemberRow] = []
        self.failures: list[tuple[MemberId, str]] = []

    def failed(self, member: MemberId, text: str) -> None:
        self.failures.append((member, text))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def jobs_of(spark: FakeSpark, heard: Heard) -> MemberJobs:
    return MemberJobs(spark, "run", "mnist", heard.rows.append, heard.failed)


def test_the_rows_of_a_job_are_kept_and_told(heard: Heard) -> None:
    spark = FakeSpark(
        lambda job: [
            Row("worker:0", "1", report=REPORT.to_json(), result=bytearray(b"pickled")),
            Row("worker:1", "2", refusal="no directory"),
        ]
    )
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER, ANOTHER], TASK.for_members(("worker:0", "worker:1")))
    assert jobs.join(10)
    assert heard.rows == [
        MemberRow(WORKER, "1", None, REPORT, b"pickled"),
        MemberRow(ANOTHER, "2", "no directory", None, None),
    ]
    assert jobs.row(WORKER) == heard.rows[0]
    assert (heard.failures, jobs.failure(WORKER)) == ([], "")


def test_a_job_runs_under_the_run_s_tag_and_its_own(heard: Heard) -> None:
    """Cancelling a cell, or the tag, reaches the run."""
    spark = FakeSpark(lambda job: [])
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    jobs.join(10)
    [job] = spark.jobs
    assert job.tags == ["tflease-run", "tflease-run-worker-0"]
    assert job.description == "tflease mnist: worker:0"
    assert job.task.members == ("worker:0",)


def test_a_job_s_tasks_take_what_its_profile_says(heard: Heard) -> None:
    spark = FakeSpark(lambda job: [])
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)), Profile(1, 2))
    jobs.submit([ANOTHER], TASK.for_members(("worker:1",)))
    jobs.join(10)
    assert {job.task.members: job.profile for job in spark.jobs} == {
        ("worker:0",): Profile(1, 2),
        ("worker:1",): None,
    }


def test_a_failed_job_is_told_for_each_of_its_members(heard: Heard) -> None:
    def fail(job: Any) -> Any:
        raise RuntimeError("Job aborted\n\tat java")

    jobs = jobs_of(FakeSpark(fail), heard)
    jobs.submit([WORKER, ANOTHER], TASK.for_members(("worker:0", "worker:1")))
    jobs.join(10)
    assert heard.failures == [(WORKER, "Job aborted"), (ANOTHER, "Job aborted")]
    assert jobs.row(WORKER) is None
    assert jobs.failure(WORKER) == "Job aborted"


def test_a_row_that_makes_no_sense_is_a_failure(heard: Heard) -> None:
    jobs = jobs_of(FakeSpark(lambda job: [Row("worker:0", "1", report="[]")]), heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    jobs.join(10)
    [(member, text)] = heard.failures
    assert member == WORKER
    assert "not an exit report" in text


def test_a_member_or_all_can_be_cancelled(heard: Heard) -> None:
    spark = FakeSpark()
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    jobs.submit([ANOTHER], TASK.for_members(("worker:1",)))
    spark.wait_for_jobs(2)
    assert not jobs.join(0)
    jobs.cancel(WORKER)
    while not heard.failures:
        assert not jobs.join(0.01)
    assert heard.failures == [(WORKER, "Job was cancelled")]
    jobs.cancel()
    assert jobs.join(10)
    assert [member for member, _ in heard.failures] == [WORKER, ANOTHER]


def test_cancelling_what_was_never_submitted_does_nothing(heard: Heard) -> None:
    jobs_of(FakeSpark(), heard).cancel(WORKER)


def test_a_stopped_context_has_nothing_left_to_cancel_or_to_wait_for(heard: Heard) -> None:
    """R6: a user may stop the session under a run."""
    spark = FakeSpark()
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    spark.wait_for_jobs(1)
    spark.stop()
    jobs.cancel()
    assert jobs.wait_until_idle(10)
    assert not jobs.running(WORKER)
    assert jobs.join(10)


@pytest.mark.parametrize("tells, running", [(True, False), (False, None)])
def test_what_spark_does_not_say_is_not_made_up(
    heard: Heard, tells: bool, running: bool | None
) -> None:
    spark = FakeSpark(tells=tells)
    jobs = jobs_of(spark, heard)
    assert jobs.running(WORKER) is False  # nothing was submitted yet
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    spark.wait_for_jobs(1)
    assert jobs.running(WORKER) is running
    jobs.cancel()
    assert jobs.join(10)


def test_a_member_that_lives_on_without_its_task_is_told_as_such(heard: Heard) -> None:
    whereabouts = '{"pid": 4711}'
    spark = FakeSpark(lambda job: [Row("worker:0", "1", handed_over=whereabouts)])
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    assert jobs.join(10)
    assert heard.rows == [MemberRow(WORKER, "1", None, None, None, handed_over=True)]


def test_threads_of_jobs_end_with_them(heard: Heard) -> None:
    before = threading.active_count()
    jobs = jobs_of(FakeSpark(lambda job: []), heard)
    for _ in range(5):
        jobs.submit([WORKER], TASK.for_members(("worker:0",)))
    assert jobs.join(10)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[SPARK_JOB_CANCELLED] Job 3 cancelled part of cancelled job tags x SQLSTATE", True),
        ("An error occurred while calling o1.x.\n: org.X: Job 3 cancelled part of group x", True),
        ("Job 3 cancelled because killed via the Web UI", True),
        ("Job 7 cancelled because SparkContext was shut down", True),
        ("(org.apache.spark.SparkSQLException) [OPERATION_CANCELED] Operation has been", True),
        (LOST_FILE, False),
        ("Job aborted due to stage failure: Task 0 failed: Job 3 cancelled", False),
        ("Job aborted due to stage failure: ExecutorLostFailure\nJob 3 cancelled", False),
        (PYTHON_TRACEBACK.format("No module named 'executor_agent'"), False),
        ("", False),
    ],
)
def test_a_job_that_was_cancelled_is_told_from_one_that_failed(text: str, expected: bool) -> None:
    """O1: the one ends a run, the other may be answered with a new job. What a task has said counts
    for nothing."""
    assert is_cancellation(RuntimeError(text)) is expected


def test_whoever_asks_hears_of_a_cancelled_job_apart(heard: Heard) -> None:
    def work(job: Any) -> list[Row]:
        raise RuntimeError("Job 3 cancelled part of cancelled job tags cell")

    cancelled: list[MemberId] = []
    jobs = MemberJobs(
        FakeSpark(work), "run", "mnist", heard.rows.append, heard.failed,
        lambda member, text: cancelled.append(member),
    )  # fmt: skip
    jobs.submit([WORKER], TASK)
    assert jobs.join(10)
    assert (cancelled, heard.failures) == ([WORKER], [])


def test_a_member_s_second_job_has_a_tag_and_a_row_of_its_own(heard: Heard) -> None:
    """What the first one returned is no result any more."""
    rows = iter([Row("worker:0", "1", report=REPORT.to_json()), Row("worker:0", "2")])
    spark = FakeSpark(lambda job: [next(rows)])
    jobs = jobs_of(spark, heard)
    task = TASK.for_members(("worker:0",))
    assert jobs.submitted(WORKER) == Submitted(why="it returned nothing")
    for restarts in (0, 1):
        jobs.submit([WORKER], task, None, restarts)
        assert jobs.join(10)
    assert [job.tags[1] for job in spark.jobs] == [
        "tflease-run-worker-0",
        "tflease-run-worker-0-again-1",
    ]
    assert jobs.row(WORKER, "1") == heard.rows[0]
    assert jobs.row(WORKER, "2") == jobs.row(WORKER) == heard.rows[1]
    assert jobs.row(WORKER, "3") is None
    found = jobs.submitted(WORKER, 1)
    assert found == Submitted(1, True, frozenset({WORKER}), "it returned nothing")


def test_a_member_of_a_shared_job_gets_one_of_its_own(heard: Heard) -> None:
    """To cancel it must not reach the others."""
    spark = FakeSpark()
    jobs = jobs_of(spark, heard)
    jobs.submit([WORKER, ANOTHER], TASK)
    jobs.submit([WORKER], TASK, None, 1)
    spark.wait_for_jobs(2)
    assert not jobs.submitted(WORKER, 1).is_over
    assert jobs.submitted(WORKER, 1).count == 1
    jobs.cancel(WORKER)
    assert sorted(job.cancelled.is_set() for job in spark.jobs) == [False, True]
    assert jobs.job_of(ANOTHER) == {ANOTHER}
    jobs.cancel()
    assert jobs.join(10)


def test_after_the_end_nothing_is_submitted(heard: Heard) -> None:
    spark = FakeSpark()
    jobs = jobs_of(spark, heard)
    jobs.cancel()
    jobs.submit([WORKER], TASK, None, 1)
    assert jobs.join(10)
    assert spark.jobs == []


def test_the_job_that_lost_the_race_for_a_slot_is_cancelled_and_tells_nobody(heard: Heard) -> None:
    """Its task would stand by, and hold a slot, for as long as the run lasts."""
    spark = FakeSpark()
    jobs = jobs_of(spark, heard)
    task = TASK.for_members(("worker:0",))
    jobs.submit([WORKER], task)
    jobs.submit([WORKER], task, None, 1)
    spark.wait_for_jobs(2)
    assert sorted(job.task.submission for job in spark.jobs) == [0, 1]
    jobs.keep_only(WORKER, "7-abcdef01-1.2")
    first, second = sorted(spark.jobs, key=lambda job: job.task.submission)
    assert (first.cancelled.is_set(), second.cancelled.is_set()) == (True, False)
    jobs.cancel(WORKER)
    assert second.cancelled.is_set()
    assert jobs.join(10)
    assert [member for member, _ in heard.failures] == [WORKER]
