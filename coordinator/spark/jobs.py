"""A run's Spark jobs: one for each member (up to ``roster.MAX_JOBS``), each on a thread of its own,
and more for members that start again elsewhere (``resubmission``).

Owns the threads, the tags and what came back. Reports to whoever listens; decides nothing.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from coordinator.core.model import ExitReport, MemberId
from coordinator.spark.gateway import Gateway, Profile
from executor_agent.spark_task import MemberTask, submission_of

_IDLE_INTERVAL = 0.1
_JOIN_INTERVAL = 0.1

_MAX_TEXT = 500  # characters of what Spark says of a job that failed


@dataclass(frozen=True, slots=True)
class MemberRow:
    """What a task returned. ``refusal``: why no member was started; ``report``: how it ended,
    with its sentinel's proof; ``result``: pickled; ``handed_over``: the member lives on without
    its task, and nothing of this will come."""

    member: MemberId
    incarnation: str
    refusal: str | None
    report: ExitReport | None
    result: bytes | None
    handed_over: bool = False


@dataclass(slots=True)
class _Job:
    """One that was submitted. ``restarts``: of the run, when it was. ``number``: among those of
    its members. ``is_unneeded``: another one has its member."""

    members: tuple[MemberId, ...]
    tag: str
    restarts: int
    number: int = 0
    is_over: bool = False
    is_unneeded: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """What has become of a member's jobs. ``count``: of them since the run was restarted last;
    ``is_over``: none of all goes on; ``shared``: the members of the latest; ``why``: what came of
    the last one that has ended, where it brought no member's end."""

    count: int = 0
    is_over: bool = True
    shared: frozenset[MemberId] = frozenset()
    why: str = ""


class MemberJobs:
    """The jobs of one run.

    On a job's thread, ``on_row`` is called with each row that came back, ``on_failure(member,
    text)`` for each member of a job that failed, or ``on_cancel(member, text)``, if there is one,
    when it failed because somebody has cancelled it.
    """

    def __init__(
        self,
        gateway: Gateway,
        run_id: str,
        name: str,
        on_row: Callable[[MemberRow], None],
        on_failure: Callable[[MemberId, str], None],
        on_cancel: Callable[[MemberId, str], None] | None = None,
    ) -> None:
        self.gateway = gateway
        self._name = name
        self._on_row = on_row
        self._on_failure = on_failure
        self._on_cancel = on_cancel or on_failure
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._jobs: dict[MemberId, list[_Job]] = {}
        self._rows: dict[MemberId, list[MemberRow]] = {}
        self._failures: dict[MemberId, str] = {}
        self._tags: dict[MemberId, str] = {}
        self._is_closed = False
        self.tag = f"tflease-{run_id}"

    def submit(
        self,
        members: Sequence[MemberId],
        task: MemberTask,
        profile: Profile | None = None,
        restarts: int = 0,
    ) -> None:
        """One job for these members; returns at once. ``profile``: what each of its tasks takes,
        where that is not what the configuration says. ``restarts``: of the run so far. After
        ``cancel`` of all nothing is submitted any more."""
        with self._lock:
            if self._is_closed:
                return
            before = max(len(self._jobs.get(member, ())) for member in members)
            tag = f"{self.tag}-{members[0].role.value}-{members[0].index}"
            tag += f"-again-{before}" if before else ""  # to cancel this one and no other
            job = _Job(tuple(members), tag, restarts, before)
            for member in members:
                self._tags[member] = tag
                self._failures.pop(member, None)
                self._jobs.setdefault(member, []).append(job)
            numbered = replace(task, submission=before)
            thread = self.gateway.thread(partial(self._run, job, numbered, profile))
            thread.daemon = True
            self._threads.append(thread)
        thread.start()

    def _run(self, job: _Job, task: MemberTask, profile: Profile | None) -> None:
        description = f"tflease {self._name}: {', '.join(map(str, job.members))}"
        try:
            found = self.gateway.run_job(task, (self.tag, job.tag), description, profile)
            rows = [_row(row) for row in found]
        except Exception as error:
            text = explain(error)
            with self._lock:
                job.is_over = True
                if job.is_unneeded:
                    return
                self._failures.update((member, text) for member in job.members)
            tell = self._on_cancel if is_cancellation(error) else self._on_failure
            for member in job.members:
                tell(member, text)
            return
        with self._lock:
            job.is_over = True
            for row in rows:
                self._rows.setdefault(row.member, []).append(row)
        for row in rows:
            self._on_row(row)

    def submitted(self, member: MemberId, restarts: int = 0) -> Submitted:
        """What has become of the member's jobs, with so many restarts behind the run."""
        with self._lock:
            jobs = self._jobs.get(member, [])
            row = next(reversed(self._rows.get(member, [])), None)
            return Submitted(
                count=sum(job.restarts == restarts for job in jobs),
                is_over=all(job.is_over for job in jobs),
                shared=frozenset(jobs[-1].members) if jobs else frozenset(),
                why=self._failures.get(member, "") or _why(row),
            )

    def keep_only(self, member: MemberId, incarnation: str) -> None:
        """This one is at work, in one of the member's jobs: its others are of no use, and would
        hold, or wait for, a slot that somebody else may need. One that it shares is left alone."""
        number = submission_of(incarnation)
        with self._lock:
            jobs = self._jobs.get(member, [])
            going_on = [job for job in jobs if not job.is_over and len(job.members) == 1]
            others = [job for job in going_on if job.number != number]
            for job in others:
                job.is_unneeded = True
                self._tags[member] = next(job.tag for job in jobs if job.number == number)
        for job in others:
            self.gateway.cancel(job.tag)

    def row(self, member: MemberId, incarnation: str | None = None) -> MemberRow | None:
        """What the member's task returned; None while or when it did not. With ``incarnation``:
        only if that is whose end it tells, and not one before a restart."""
        with self._lock:
            rows = self._rows.get(member, [])
            found = (row for row in reversed(rows) if incarnation in (None, row.incarnation))
            return next(found, None)

    def failure(self, member: MemberId) -> str:
        """Why the member's job failed; "" while or when it did not."""
        with self._lock:
            return self._failures.get(member, "")

    def join(self, timeout: float) -> bool:
        """Waits for all jobs to end; False when some go on, and none has ended for ``timeout``
        seconds: the rows of a large gang take their time."""
        with self._lock:
            alive = list(self._threads)
        deadline = time.monotonic() + timeout
        while alive := [thread for thread in alive if thread.is_alive()]:
            count = len(alive)
            alive[0].join(max(0.0, min(_JOIN_INTERVAL, deadline - time.monotonic())))
            if sum(thread.is_alive() for thread in alive) < count:
                deadline = time.monotonic() + timeout
            elif time.monotonic() >= deadline:
                return False
        return True

    def cancel(self, member: MemberId | None = None) -> None:
        """Cancels a member's latest job, or all, for good; Spark kills running tasks within
        seconds."""
        with self._lock:
            self._is_closed = self._is_closed or member is None
        tag = self.tag if member is None else self._tags.get(member)
        if tag is not None:
            self.gateway.cancel(tag)

    def running(self, member: MemberId) -> bool | None:
        """Whether a task of the member's job runs now; None when Spark does not say."""
        active = self.active_tasks(member)
        return None if active is None else active > 0

    def active_tasks(self, member: MemberId) -> int | None:
        """How many tasks of the member's job run now; None when Spark does not say."""
        tag = self._tags.get(member)
        return 0 if tag is None else self.gateway.active_tasks(tag)

    def job_of(self, member: MemberId) -> frozenset[MemberId]:
        """The members that share its job."""
        tag = self._tags.get(member)
        return frozenset(each for each, other in list(self._tags.items()) if other == tag)

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits until Spark says that no task of the run is active, or says nothing. A cancelled
        job is over for the driver at once, while Spark takes seconds to kill its tasks. False at
        the timeout."""
        deadline = time.monotonic() + timeout
        while self.gateway.active_tasks(self.tag):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_IDLE_INTERVAL)
        return True


def _row(row: Any) -> MemberRow:
    return MemberRow(
        member=MemberId.parse(row.member),
        incarnation=row.incarnation,
        refusal=row.refusal,
        report=ExitReport.from_json(row.report) if row.report is not None else None,
        result=bytes(row.result) if row.result is not None else None,
        handed_over=getattr(row, "handed_over", None) is not None,
    )


def _why(row: MemberRow | None) -> str:
    """What a row says of the end of a task that nobody needs any more."""
    if row is None:
        return "it returned nothing"
    if row.report is None:
        return row.refusal or "it returned nothing"
    said = row.report.reason or row.report.message
    return f"{row.report.cause.value}{said and f', {said}'}"


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
    return _cause(lines)[:_MAX_TEXT] if lines else type(error).__name__


_CANCELLED = re.compile(
    r"\bJob (\d+ |was )?cancelled\b|OPERATION_CANCELED|SparkContext (was|has been) ?shut ?down"
)


def is_cancellation(error: BaseException) -> bool:
    """Whether somebody has cancelled the job: the user's cell, Spark's web page, a tag, or the end
    of the session. What a task has said before it failed is somewhere below, and does not count."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = _cause(lines) if lines else ""
    return "aborted due to stage failure" not in said and bool(_CANCELLED.search(said))


def _cause(lines: list[str]) -> str:
    """py4j's first line only names a call; the JVM's exception follows, and what it was caused by,
    the last of which began it."""
    if lines[0].startswith("An exception was thrown from the Python worker"):
        return lines[-1]  # of a traceback
    if not lines[0].startswith("An error occurred while calling "):
        return lines[0]
    thrown = next((line.removeprefix(": ") for line in lines[1:] if line.startswith(": ")), "")
    causes = [line for line in lines if line.startswith("Caused by: ")]
    if not causes:
        return thrown or lines[0]
    return " ".join(filter(None, (thrown[: _MAX_TEXT // 2], causes[-1])))
