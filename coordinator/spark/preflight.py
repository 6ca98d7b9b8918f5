"""What is checked on the driver before any job is started, so that a run that Spark can never seat
fails at once with the numbers, instead of waiting for a deadline (R1)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.core.errors import FeatureUnavailable, NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles, Slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTLING_SECONDS = 30.0
"""So long after its start an application's executors may still be registering."""


def classic_session(spark: Any) -> SparkSession:
    """The session to launch on. Accepts a SparkSession or a SparkContext.

    Raises SparkUnusable when it is stopped or something else, FeatureUnavailable for Spark
    Connect.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise FeatureUnavailable(
            "Spark Connect needs a standalone coordinator, which this version does not have: use "
            "a classic SparkSession"
        )
    if isinstance(spark, SparkContext):
        _check_alive(spark)
        return SparkSession(spark)
    if not isinstance(spark, SparkSession):
        raise SparkUnusable(f"expected a SparkSession or a SparkContext, got {spark!r}")
    _check_alive(spark.sparkContext)
    return spark


def _check_alive(context: Any) -> None:
    try:
        stopped = context._jsc is None or context._jsc.sc().isStopped()
    except Exception:  # py4j's: the JVM is gone
        stopped = True
    if stopped:
        raise SparkUnusable(
            "this SparkContext has been stopped: make a new session "
            "(SparkSession.builder.getOrCreate()) and pass that one"
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """Task slots that Spark can have at most. ``is_final``: it cannot grow."""

    slots: int
    is_final: bool
    how: str


def check_slots(spark: SparkSession, roles: Roles) -> None:
    """Raises NotEnoughSlots when the run can never be seated."""
    found = capacity(spark)
    if not found.is_final or found.slots >= roles.total:
        return
    raise NotEnoughSlots(
        f"the run needs {roles.total} task slots at once ({_spelled(roles)}), one for each "
        f"member, but the application has {found.slots} ({found.how}): ask for fewer members, or "
        "give Spark more executors or cores (spark.executor.instances, spark.executor.cores, "
        "spark.cores.max), or lower spark.task.cpus",
        {"needed": str(roles.total), "slots": str(found.slots)},
    )


def _spelled(roles: Roles) -> str:
    counts = (("chief", roles.chief), ("worker", roles.worker), ("ps", roles.ps))
    shown = [f"{count} {name}" for name, count in counts if count]
    if roles.evaluator:
        shown.append(f"{roles.evaluator} evaluator")
    return " + ".join(shown)


def capacity(spark: SparkSession) -> Capacity:
    """From the master's URL or the configuration where they say it, else from what has
    registered."""
    context = spark.sparkContext
    conf = context.getConf()
    cpus = max(1, int(conf.get("spark.task.cpus", "1") or 1))
    master = str(context.master)
    local = _local_capacity(master, cpus)
    if local is not None:
        return local
    now = registered_slots(spark)
    if master.startswith("local["):  # "local[*]": all cores of this machine
        return Capacity(now, now > 0, f"master {master}, {cpus} cores for each task")
    cores = conf.get("spark.executor.cores", "")
    if not cores and master.startswith(("yarn", "k8s")):  # elsewhere the default is all of a host
        cores = "1"
    if str(conf.get("spark.dynamicAllocation.enabled", "false")).lower() == "true":
        most = conf.get("spark.dynamicAllocation.maxExecutors", "")
        if not most or not cores:
            return Capacity(now, False, "dynamic allocation")
        how = f"dynamic allocation, at most {most} executors of {cores} cores"
        return Capacity(max(now, int(most) * (int(cores) // cpus)), True, how)
    instances = conf.get("spark.executor.instances", "")
    if instances and cores:
        how = f"{instances} executors of {cores} cores, {cpus} for each task"
        return Capacity(max(now, int(instances) * (int(cores) // cpus)), True, how)
    age = time.time() - float(context.startTime or 0) / 1000.0
    return Capacity(now, age > _SETTLING_SECONDS and now > 0, "what its executors registered")


def _local_capacity(master: str, cpus: int) -> Capacity | None:
    cluster = re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*\d+\s*\]", master)
    if cluster:
        executors, cores = int(cluster[1]), int(cluster[2])
        how = f"{master}: {executors} executors of {cores} cores, {cpus} for each task"
        return Capacity(executors * (cores // cpus), True, how)
    threads = re.fullmatch(r"local\[\s*(\d+)\s*(?:,\s*\d+\s*)?\]", master)
    if threads or master == "local":
        cores = int(threads[1]) if threads else 1
        return Capacity(cores // cpus, True, f"master {master}, {cpus} cores for each task")
    return None


def registered_slots(spark: SparkSession) -> int:
    """Slots of the executors that are there now; 0 when Spark does not say."""
    try:
        scala = spark.sparkContext._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        return int(scala.maxNumConcurrentTasks(profile))
    except Exception:  # an internal interface, or a stopped context: it costs only the check
        return 0


def slots(spark: SparkSession) -> Slots:
    """Slots and how many are busy, for the diagnosis."""
    context = spark.sparkContext
    try:
        executors = context.statusTracker().getExecutorInfos()
        busy = sum(int(each.numRunningTasks) for each in executors)
    except Exception:  # as above: it only feeds the diagnosis
        busy = -1
    return Slots(registered_slots(spark), busy)


def check_environment(spark: SparkSession) -> None:
    """Configurations that would kill members. Raises SparkUnusable."""
    conf = spark.conf
    idle = conf.get("spark.sql.execution.pyspark.udf.idleTimeoutSeconds", "0") or "0"
    kills = conf.get("spark.sql.execution.pyspark.udf.killOnIdleTimeout.enabled", "false")
    if str(kills).lower() == "true" and str(idle) not in ("0", "0s"):
        raise SparkUnusable(
            "spark.sql.execution.pyspark.udf.idleTimeoutSeconds with killOnIdleTimeout kills "
            "Python workers that read no input, which is what members are: unset one of the two"
        )
    memory = spark.sparkContext.getConf().get("spark.executor.pyspark.memory", "")
    if memory:
        raise SparkUnusable(
            f"spark.executor.pyspark.memory={memory} limits the address space of Python workers "
            "and of TensorFlow below them, which then dies in strange ways: unset it and raise "
            "spark.executor.memoryOverhead instead"
        )
