"""A run's Spark jobs: one for each member (up to ``roster.MAX_JOBS``), each on a thread of its own.

Owns the threads, the tags and what came back. Reports to whoever listens; decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.core.model import ExitReport, MemberId
from executor_agent.spark_task import ROW_SCHEMA, MemberTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_IDLE_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class MemberRow:
    """What a task returned. ``refusal``: why no member was started; ``report``: how it ended,
    with its sentinel's proof; ``result``: pickled."""

    member: MemberId
    incarnation: str
    refusal: str | None
    report: ExitReport | None
    result: bytes | None


class MemberJobs:
    """The jobs of one run.

    On a job's thread, ``on_row`` is called with each row that came back, ``on_failure(member,
    text)`` for each member of a job that failed.
    """

    def __init__(
        self,
        spark: SparkSession,
        run_id: str,
        name: str,
        on_row: Callable[[MemberRow], None],
        on_failure: Callable[[MemberId, str], None],
    ) -> None:
        self.spark = spark
        self._context = spark.sparkContext
        self._name = name
        self._on_row = on_row
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._rows: dict[MemberId, MemberRow] = {}
        self._failures: dict[MemberId, str] = {}
        self._tags: dict[MemberId, str] = {}
        self.tag = f"tflease-{run_id}"

    def submit(self, members: Sequence[MemberId], task: MemberTask) -> None:
        """One job for these members; returns at once."""
        from pyspark import InheritableThread

        tag = f"{self.tag}-{members[0].role.value}-{members[0].index}"
        for member in members:
            self._tags[member] = tag
        # Inheritable: a plain thread would lose the notebook cell's job group, and cancelling
        # the cell would miss the run.
        thread = InheritableThread(target=self._run, args=(tuple(members), task, tag))
        thread.daemon = True
        self._threads.append(thread)
        thread.start()

    def _run(self, members: tuple[MemberId, ...], task: MemberTask, tag: str) -> None:
        names = ", ".join(map(str, members))
        try:
            self._context.addJobTag(self.tag)
            self._context.addJobTag(tag)
            self._context.setLocalProperty(
                "spark.job.description", f"tflease {self._name}: {names}"
            )
            count = len(members)
            frame = self.spark.range(0, count, 1, count).mapInArrow(task, ROW_SCHEMA)
            rows = [_row(row) for row in frame.collect()]
        except Exception as error:
            text = explain(error)
            with self._lock:
                self._failures.update((member, text) for member in members)
            for member in members:
                self._on_failure(member, text)
            return
        with self._lock:
            self._rows.update((row.member, row) for row in rows)
        for row in rows:
            self._on_row(row)

    def row(self, member: MemberId) -> MemberRow | None:
        """What the member's task returned; None while or when it did not."""
        with self._lock:
            return self._rows.get(member)

    def failure(self, member: MemberId) -> str:
        """Why the member's job failed; "" while or when it did not."""
        with self._lock:
            return self._failures.get(member, "")

    def join(self, timeout: float) -> bool:
        """Waits for all jobs to end; False when some have not after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def cancel(self, member: MemberId | None = None) -> None:
        """Cancels a member's job, or all; Spark kills running tasks within seconds."""
        tag = self.tag if member is None else self._tags.get(member)
        if tag is not None:
            with suppress(Exception):  # a stopped context has cancelled them by itself
                self._context.cancelJobsWithTag(tag)

    def running(self, member: MemberId) -> bool:
        """Whether Spark says that the member's task runs now."""
        tag = self._tags.get(member)
        return tag is not None and self._has_active_tasks(tag)

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits until Spark says that no task of the run is active. A cancelled job is over for
        the driver at once, while Spark takes seconds to kill its tasks. False at the timeout."""
        deadline = time.monotonic() + timeout
        while self._has_active_tasks(self.tag):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_IDLE_INTERVAL)
        return True

    def _has_active_tasks(self, tag: str) -> bool:
        try:
            tracker: Any = self._context._jsc.sc().statusTracker()
            jobs = [int(job) for job in tracker.getJobIdsForTag(tag)]
            return any(_active_tasks(self._context.statusTracker(), job) for job in jobs)
        except Exception:  # an internal interface, or a stopped context: nothing can be told
            return False


def _active_tasks(tracker: Any, job: int) -> int:
    info = tracker.getJobInfo(job)
    stages = [tracker.getStageInfo(int(stage)) for stage in (info.stageIds if info else ())]
    return sum(int(stage.numActiveTasks) for stage in stages if stage is not None)


def _row(row: Any) -> MemberRow:
    return MemberRow(
        member=MemberId.parse(row.member),
        incarnation=row.incarnation,
        refusal=row.refusal,
        report=ExitReport.from_json(row.report) if row.report is not None else None,
        result=bytes(row.result) if row.result is not None else None,
    )


_ADVICE = (
    (
        "No module named 'executor_agent'",
        "tflease is not installed for the executors' Python: install it there, or set "
        "PYSPARK_PYTHON to an interpreter that has it",
    ),
    (
        "No module named 'coordinator'",
        "tflease is not installed for the executors' Python: install it there, or set "
        "PYSPARK_PYTHON to an interpreter that has it",
    ),
    (
        "PYTHON_VERSION_MISMATCH",
        "executors run another minor version of Python than the driver: set PYSPARK_PYTHON to "
        "the same one",
    ),
    (
        "No module named 'pyarrow'",
        "the executors' Python has no pyarrow: it is probably not the one you meant; set "
        "PYSPARK_PYTHON",
    ),
    (
        "Cannot run program",
        "the executors' Python was not found: set PYSPARK_PYTHON to a path that exists there",
    ),
)


def explain(error: BaseException) -> str:
    """The line of a Spark exception that matters, with what to do about it where we know."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for sign, advice in _ADVICE:
        if sign in text:
            line = next((line for line in lines if sign in line), sign)
            return f"{line} ({advice})"
    return lines[0][:500] if lines else type(error).__name__
