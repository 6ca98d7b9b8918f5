"""A classic Spark session: the driver's own JVM, which tells almost everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Slots
from coordinator.spark import profiles
from coordinator.spark.gateway import Profile
from executor_agent.spark_task import ROW_SCHEMA, MemberTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SQL = "spark.sql."
"""Configurations that may change while the session lives begin so."""


def check_alive(context: Any) -> None:
    """Raises SparkUnusable when the SparkContext has been stopped."""
    try:
        stopped = context._jsc is None or context._jsc.sc().isStopped()
    except Exception:  # py4j's: the JVM is gone
        stopped = True
    if stopped:
        raise SparkUnusable(
            "this SparkContext has been stopped: make a new session "
            "(SparkSession.builder.getOrCreate()) and pass that one"
        )


class ClassicGateway:
    """See ``gateway.Gateway``."""

    def __init__(self, session: SparkSession) -> None:
        self._session = session
        self._context = session.sparkContext

    @property
    def application_id(self) -> str:
        return str(self._context.applicationId)

    @property
    def master(self) -> str:
        return str(self._context.master)

    @property
    def driver_host(self) -> str:
        return self.conf("spark.driver.host")

    @property
    def started_at(self) -> float:
        return float(self._context.startTime or 0) / 1000.0

    def conf(self, name: str) -> str:
        if name.startswith(_SQL):
            return str(self._session.conf.get(name, "") or "")
        return str(self._context.getConf().get(name, "") or "")

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        from pyspark import InheritableThread

        return InheritableThread(target=work)

    def run_job(
        self,
        task: MemberTask,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        for tag in tags:  # of this thread
            self._context.addJobTag(tag)
        self._context.setLocalProperty("spark.job.description", description)
        count = len(task.members)
        slots = self._session.range(0, count, 1, count)
        if profile is None:
            return list(slots.mapInArrow(task, ROW_SCHEMA).collect())
        resources = profiles.build(profile, self.application_id)
        frame = slots.mapInArrow(task, ROW_SCHEMA, profile=resources)
        return list(frame.collect())

    def cancel(self, tag: str) -> None:
        with suppress(Exception):  # a stopped context has cancelled them by itself
            self._context.cancelJobsWithTag(tag)

    def active_tasks(self, tag: str) -> int | None:
        try:
            tracker: Any = self._context._jsc.sc().statusTracker()
            jobs = [int(job) for job in tracker.getJobIdsForTag(tag)]
            return sum(_active_tasks(self._context.statusTracker(), job) for job in jobs)
        except Exception:  # an internal interface, or a stopped context: nothing can be told
            return None

    def registered_slots(self) -> int:
        try:
            scala = self._context._jsc.sc()
            profile = scala.resourceProfileManager().defaultResourceProfile()
            return int(scala.maxNumConcurrentTasks(profile))
        except Exception:  # an internal interface, or a stopped context: it costs only the check
            return 0

    def slots(self) -> Slots:
        try:
            executors = self._context.statusTracker().getExecutorInfos()
            busy = sum(int(each.numRunningTasks) for each in executors)
        except Exception:  # as above: it only feeds the diagnosis
            busy = -1
        return Slots(self.registered_slots(), busy)


def _active_tasks(tracker: Any, job: int) -> int:
    info = tracker.getJobInfo(job)
    stages = [tracker.getStageInfo(int(stage)) for stage in (info.stageIds if info else ())]
    return sum(int(stage.numActiveTasks) for stage in stages if stage is not None)
