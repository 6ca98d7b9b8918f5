"""A run's Spark jobs: one for each member (up to ``roster.MAX_JOBS``), each on a thread of its own.

Owns the threads, the tags and what came back. Reports to whoever listens; decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from coordinator.core.model import ExitReport, MemberId
from coordinator.spark.gateway import Gateway, Profile
from executor_agent.spark_task import MemberTask

_IDLE_INTERVAL = 0.1

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


class MemberJobs:
    """The jobs of one run.

    On a job's thread, ``on_row`` is called with each row that came back, ``on_failure(member,
    text)`` for each member of a job that failed.
    """

    def __init__(
        self,
        gateway: Gateway,
        run_id: str,
        name: str,
        on_row: Callable[[MemberRow], None],
        on_failure: Callable[[MemberId, str], None],
    ) -> None:
        self.gateway = gateway
        self._name = name
        self._on_row = on_row
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._rows: dict[MemberId, MemberRow] = {}
        self._failures: dict[MemberId, str] = {}
        self._tags: dict[MemberId, str] = {}
        self.tag = f"tflease-{run_id}"

    def submit(
        self, members: Sequence[MemberId], task: MemberTask, profile: Profile | None = None
    ) -> None:
        """One job for these members; returns at once. ``profile``: what each of its tasks takes,
        where that is not what the configuration says."""
        tag = f"{self.tag}-{members[0].role.value}-{members[0].index}"
        for member in members:
            self._tags[member] = tag
        thread = self.gateway.thread(partial(self._run, tuple(members), task, tag, profile))
        thread.daemon = True
        self._threads.append(thread)
        thread.start()

    def _run(
        self, members: tuple[MemberId, ...], task: MemberTask, tag: str, profile: Profile | None
    ) -> None:
        description = f"tflease {self._name}: {', '.join(map(str, members))}"
        try:
            found = self.gateway.run_job(task, (self.tag, tag), description, profile)
            rows = [_row(row) for row in found]
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


def _cause(lines: list[str]) -> str:
    """py4j's first line only names a call; the JVM's exception follows, and what it was caused by,
    the last of which began it."""
    if not lines[0].startswith("An error occurred while calling "):
        return lines[0]
    thrown = next((line.removeprefix(": ") for line in lines[1:] if line.startswith(": ")), "")
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return " ".join(filter(None, (thrown[: _MAX_TEXT // 2], *causes[-1:]))) or lines[0]
