"""What tflease asks of Spark, whatever kind of session the user has.

The rest of the driver's side knows this seam only; ``classic`` and ``connect`` are behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Slots
from executor_agent.spark_task import MemberTask

if TYPE_CHECKING:
    from executor_agent.feed.feeder import Feeder


@dataclass(frozen=True, slots=True)
class Profile:
    """What one task of a job takes, where that is not what the configuration says: a *resource
    profile* of Spark's. ``executor_gpus`` and what follows it also ask for executors, as dynamic
    allocation needs it; 0: any executor that is there. ``executor_cores`` 0: as configured."""

    cpus: float
    gpus: int = 0
    executor_gpus: int = 0
    executor_cores: int = 0
    discovery_script: str = ""
    vendor: str = ""


class Gateway(Protocol):
    """One Spark application. Thread-safe. ``cancel``, ``active_tasks``, ``pulse`` and what
    tells of slots never raise: a user may stop the session under a run (R6)."""

    @property
    def application_id(self) -> str:
        """The same for all sessions that share its slots, as far as can be told."""

    @property
    def master(self) -> str:
        """Spark's master URL; "" when unknown."""

    @property
    def driver_host(self) -> str:
        """The driver as its executors reach it (``spark.driver.host``); "" when unknown."""

    @property
    def started_at(self) -> float:
        """When the application was started, in Unix seconds; 0 when unknown."""

    def conf(self, name: str) -> str:
        """A configuration value; "" when it is not set or cannot be read."""

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        """A thread, not started yet, on which jobs belong to the same group and tags as they
        would here: cancelling a notebook's cell reaches them."""

    def run_job(
        self,
        task: MemberTask,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        """One task for each member of ``task``, and the rows that they return; blocks until then.
        The job bears the tags. Without ``profile`` its tasks take what the configuration says.
        Call it on a ``thread``. Raises what Spark raises."""

    def run_feed(
        self,
        data: Any,
        feeder: Feeder,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        """One feeder for each partition of ``data``, a DataFrame or an RDD of this session, and the
        rows that they return. Otherwise as ``run_job``."""

    def run_one(
        self,
        task: Callable[..., Any],
        schema: str,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        """One Spark task, a function for ``mapInArrow``, and the rows that it returns, which have
        this schema (DDL). Otherwise as ``run_job``."""

    def cancel(self, tag: str) -> None:
        """Cancels the jobs with this tag; Spark kills their running tasks within seconds."""

    def active_tasks(self, tag: str) -> int | None:
        """How many tasks of the jobs with this tag run now; None when Spark does not say."""

    def pulse(self, tag: str) -> Hashable:
        """Something that is another whenever a task of the jobs with this tag has begun or ended;
        None when Spark does not say."""

    def registered_slots(self) -> int:
        """Task slots of the executors that are there now; 0 when Spark does not say."""

    def slots(self) -> Slots:
        """Task slots and how many are busy, for the diagnosis."""


def open_gateway(spark: Any, *, has_daemon: bool) -> Gateway:
    """To the user's session: a SparkSession, classic or Connect, or a SparkContext.

    Raises SparkUnusable when it is stopped or something else, FeatureUnavailable for Spark Connect
    without a daemon (``has_daemon``).
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    from coordinator.spark import classic, connect

    if type(spark).__module__.startswith("pyspark.sql.connect"):
        return connect.open_session(spark, has_daemon=has_daemon)
    if isinstance(spark, SparkContext):
        classic.check_alive(spark)
        return classic.ClassicGateway(SparkSession(spark))
    if not isinstance(spark, SparkSession):
        raise SparkUnusable(f"expected a SparkSession or a SparkContext, got {spark!r}")
    classic.check_alive(spark.sparkContext)
    return classic.ClassicGateway(spark)
