"""A Spark session without a JVM: jobs are callables on the thread that asks for them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from executor_agent.spark_task import MemberTask


@dataclass(frozen=True)
class Row:
    """As `collect` has it."""

    member: str
    incarnation: str
    refusal: str | None = None
    report: str | None = None
    result: bytearray | None = None


@dataclass
class Job:
    """One `collect`, as Spark sees it. ``cancelled`` is set when somebody wants its end."""

    task: MemberTask
    partitions: int
    tags: Sequence[str]
    description: str
    cancelled: threading.Event = field(default_factory=threading.Event)


Work = Callable[[Job], list[Row]]


def until_cancelled(job: Job) -> list[Row]:
    """A job that finds no slot."""
    assert job.cancelled.wait(60)
    raise RuntimeError("Job was cancelled")


class FakeContext:
    def __init__(self, spark: FakeSpark, master: str, conf: dict[str, str]) -> None:
        self._spark = spark
        self._local = threading.local()
        self._conf = conf
        self._jsc: Any = SimpleNamespace()  # tells nothing
        self.master = master
        self.applicationId = uuid.uuid4().hex

    def getConf(self) -> Any:
        return SimpleNamespace(get=self._conf.get)

    def addJobTag(self, tag: str) -> None:
        self.tags().append(tag)

    def tags(self) -> list[str]:
        found: list[str] = self._local.__dict__.setdefault("tags", [])
        return found

    def setLocalProperty(self, name: str, value: str) -> None:
        self._local.__dict__[name] = value

    def description(self) -> str:
        return str(self._local.__dict__["spark.job.description"])

    def cancelJobsWithTag(self, tag: str) -> None:
        if self._jsc is None:
            raise AttributeError("'NoneType' object has no attribute 'sc'")
        for job in self._spark.jobs:
            if tag in job.tags:
                job.cancelled.set()


class FakeSpark:
    """``work`` is what a job does; by default it waits for a slot until it is cancelled."""

    def __init__(
        self,
        work: Work = until_cancelled,
        master: str = "local[4]",
        conf: dict[str, str] | None = None,
    ) -> None:
        self.sparkContext = FakeContext(self, master, conf or {"spark.driver.host": "127.0.0.1"})
        self.jobs: list[Job] = []
        self._work = work
        self._submitted = threading.Condition()

    def range(self, start: int, end: int, step: int, partitions: int) -> Any:
        assert end - start == partitions
        return SimpleNamespace(
            mapInArrow=lambda task, schema: SimpleNamespace(
                collect=lambda: self._collect(task, partitions)
            )
        )

    def _collect(self, task: MemberTask, partitions: int) -> list[Row]:
        context = self.sparkContext
        job = Job(task, partitions, list(context.tags()), context.description())
        with self._submitted:
            self.jobs.append(job)
            self._submitted.notify_all()
        return self._work(job)

    def wait_for_jobs(self, count: int) -> None:
        with self._submitted:
            assert self._submitted.wait_for(lambda: len(self.jobs) >= count, 30)

    def stop(self) -> None:
        """As a user may, at any time: running jobs end, and nothing can be asked any more."""
        self.sparkContext._jsc = None
        for job in self.jobs:
            job.cancelled.set()
