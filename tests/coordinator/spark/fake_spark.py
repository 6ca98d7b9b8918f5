"""A Spark session without a JVM: jobs are callables on the thread that asks for them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.core.model import Slots
from coordinator.spark.gateway import Profile
from executor_agent.spark_task import MemberTask


@dataclass(frozen=True)
class Row:
    """As `collect` has it."""

    member: str
    incarnation: str
    refusal: str | None = None
    report: str | None = None
    result: bytearray | None = None
    handed_over: str | None = None


@dataclass
class Job:
    """One `collect`, as Spark sees it. ``cancelled`` is set when somebody wants its end."""

    task: MemberTask
    tags: Sequence[str]
    description: str
    profile: Profile | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


Work = Callable[[Job], list[Row]]


def until_cancelled(job: Job) -> list[Row]:
    """A job that finds no slot."""
    assert job.cancelled.wait(60)
    raise RuntimeError("Job was cancelled")


class FakeSpark:
    """A `Gateway`. ``work`` is what a job does; by default it waits for a slot until it is
    cancelled. ``tells``: whether it says which tasks run, as Spark Connect does not."""

    def __init__(
        self,
        work: Work = until_cancelled,
        master: str = "local[4]",
        conf: dict[str, str] | None = None,
        registered: int = 0,
        age: float = 1.0,
        tells: bool = True,
    ) -> None:
        self.application_id = uuid.uuid4().hex
        self.master = master
        self.started_at = time.time() - age
        self.jobs: list[Job] = []
        self.active = 0
        """Tasks of every job that run, as Spark tells it."""
        self._conf = {"spark.driver.host": "127.0.0.1"} if conf is None else conf
        self._registered = registered
        self._tells = tells
        self._work = work
        self._submitted = threading.Condition()

    @property
    def driver_host(self) -> str:
        return self.conf("spark.driver.host")

    def conf(self, name: str) -> str:
        return self._conf.get(name, "")

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=work)

    def run_job(
        self,
        task: MemberTask,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        job = Job(task, list(tags), description, profile)
        with self._submitted:
            self.jobs.append(job)
            self._submitted.notify_all()
        return self._work(job)

    def cancel(self, tag: str) -> None:
        for job in self.jobs:
            if tag in job.tags:
                job.cancelled.set()

    def active_tasks(self, tag: str) -> int | None:
        return self.active if self._tells else None

    def registered_slots(self) -> int:
        return self._registered

    def slots(self) -> Slots:
        return Slots(self._registered, 0)

    def wait_for_jobs(self, count: int) -> None:
        with self._submitted:
            assert self._submitted.wait_for(lambda: len(self.jobs) >= count, 30)

    def stop(self) -> None:
        """As a user may, at any time: running jobs end, and nothing can be asked any more."""
        self._tells = False
        for job in self.jobs:
            job.cancelled.set()
