"""A classic Spark session: the driver's own JVM, which tells almost everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Slots
from coordinator.spark import profiles
from coordinator.spark.feed import arrow_batches
from coordinator.spark.gateway import Profile
from executor_agent.spark_task import ROW_SCHEMA, MemberTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from executor_agent.feed.feeder import Feeder

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
        return self._collect(task, ROW_SCHEMA, len(task.members), tags, description, profile)

    def run_one(
        self,
        task: Callable[..., Any],
        schema: str,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        return self._collect(task, schema, 1, tags, description, profile)

    def _collect(
        self,
        task: Callable[..., Any],
        schema: str,
        count: int,
        tags: Sequence[str],
        description: str,
        profile: Profile | None,
    ) -> list[Any]:
        self._label(tags, description)
        slots = self._session.range(0, count, 1, count)
        return list(slots.mapInArrow(task, schema, **self._resources(profile)).collect())

    def run_feed(
        self,
        data: Any,
        feeder: Feeder,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        from executor_agent.feed.feeder import FEED_ROW_SCHEMA

        if type(data).__module__.startswith("pyspark.sql.connect"):
            raise SparkUnusable(
                "the DataFrame is of a Spark Connect session, and the run of a classic one: make "
                "it with the session that TFCluster.run was given"
            )
        self._label(tags, description)
        resources = self._resources(profile)
        if hasattr(data, "mapInArrow"):
            with arrow_batches.small(data.sparkSession):
                return list(data.mapInArrow(feeder, FEED_ROW_SCHEMA, **resources).collect())
        rows = data.mapPartitions(feeder.rows)
        return list((rows.withResources(resources["profile"]) if resources else rows).collect())

    def _label(self, tags: Sequence[str], description: str) -> None:
        """What this thread's jobs are called from now on."""
        for tag in tags:
            self._context.addJobTag(tag)
        self._context.setLocalProperty("spark.job.description", description)

    def _resources(self, profile: Profile | None) -> dict[str, Any]:
        """For ``mapInArrow``."""
        return {} if profile is None else {"profile": profiles.build(profile, self.application_id)}

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

    def pulse(self, tag: str) -> Hashable:
        try:
            found: Any = self._context._jsc.sc().statusTracker()
            jobs = sorted(int(job) for job in found.getJobIdsForTag(tag))
            return tuple((job, *_pulse(self._context.statusTracker(), job)) for job in jobs)
        except Exception:  # as above: nothing can be told
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


def _pulse(tracker: Any, job: int) -> list[tuple[int, int, int]]:
    info = tracker.getJobInfo(job)
    stages = [tracker.getStageInfo(int(stage)) for stage in (info.stageIds if info else ())]
    return [
        (int(stage.numActiveTasks), int(stage.numCompletedTasks), int(stage.numFailedTasks))
        for stage in stages
        if stage is not None
    ]
