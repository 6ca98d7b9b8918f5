"""What is checked on the driver before any job is started, so that a run that Spark can never seat
fails at once with the numbers, instead of waiting for a deadline (R1)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from coordinator.core.errors import InvalidRun, NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles
from coordinator.spark.gateway import Gateway

_SETTLING_SECONDS = 30.0
"""So long after its start an application's executors may still be registering."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Task slots that Spark can have at most. ``is_final``: it cannot grow."""

    slots: int
    is_final: bool
    how: str


def check_slots(gateway: Gateway, roles: Roles) -> None:
    """Raises NotEnoughSlots when the run can never be seated."""
    found = capacity(gateway)
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


def capacity(gateway: Gateway) -> Capacity:
    """From the master's URL or the configuration where they say it, else from what has
    registered."""
    cpus = max(1, int(gateway.conf("spark.task.cpus") or 1))
    master = gateway.master
    local = _local_capacity(master, cpus)
    if local is not None:
        return local
    now = gateway.registered_slots()
    if master.startswith("local["):  # "local[*]": all cores of this machine
        return Capacity(now, now > 0, f"master {master}, {cpus} cores for each task")
    cores = gateway.conf("spark.executor.cores")
    if not cores and master.startswith(("yarn", "k8s")):  # elsewhere the default is all of a host
        cores = "1"
    if has_dynamic_allocation(gateway):
        most = gateway.conf("spark.dynamicAllocation.maxExecutors")
        if not most or not cores:
            return Capacity(now, False, "dynamic allocation")
        how = f"dynamic allocation, at most {most} executors of {cores} cores"
        return Capacity(max(now, int(most) * (int(cores) // cpus)), True, how)
    instances = gateway.conf("spark.executor.instances")
    if instances and cores:
        how = f"{instances} executors of {cores} cores, {cpus} for each task"
        return Capacity(max(now, int(instances) * (int(cores) // cpus)), True, how)
    wanted = gateway.conf("spark.cores.max")
    if wanted and master.startswith("spark://"):  # its executors may still be starting
        how = f"spark.cores.max={wanted}, {cpus} cores for each task"
        return Capacity(max(now, int(wanted) // cpus), True, how)
    if now and float(gateway.conf("spark.task.resource.gpu.amount") or 0) > 0:
        return Capacity(now, False, "what its executors registered, by their GPUs")
    age = time.time() - gateway.started_at
    return Capacity(now, age > _SETTLING_SECONDS and now > 0, "what its executors registered")


def has_dynamic_allocation(gateway: Gateway) -> bool:
    """Whether Spark adds and removes executors as it likes."""
    return gateway.conf("spark.dynamicAllocation.enabled").lower() == "true"


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


def check_environment(gateway: Gateway) -> None:
    """Configurations that would kill members. Raises SparkUnusable."""
    idle = gateway.conf("spark.sql.execution.pyspark.udf.idleTimeoutSeconds")
    kills = gateway.conf("spark.sql.execution.pyspark.udf.killOnIdleTimeout.enabled")
    if kills.lower() == "true" and idle not in ("", "0", "0s"):
        raise SparkUnusable(
            "spark.sql.execution.pyspark.udf.idleTimeoutSeconds with killOnIdleTimeout kills "
            "Python workers that read no input, which is what members are: unset one of the two"
        )
    memory = gateway.conf("spark.executor.pyspark.memory")
    if memory:
        raise SparkUnusable(
            f"spark.executor.pyspark.memory={memory} limits the address space of Python workers "
            "and of TensorFlow below them, which then dies in strange ways: unset it and raise "
            "spark.executor.memoryOverhead instead"
        )


def choose_anchor(gateway: Gateway, roles: Roles, asked: str | None, *, is_fed: bool) -> str:
    """The task, unless the members would hold every slot that there is, and nothing could feed
    them: then they live with their executors, and their tasks end once the gang is formed. Raises
    as ``check_anchor`` does."""
    if asked is None:
        found = capacity(gateway)
        has_none_left = found.is_final and found.slots <= roles.total
        asked = "executor" if is_fed and has_none_left else "task"
    check_anchor(gateway, asked)
    return asked


def check_anchor(gateway: Gateway, anchor: str) -> None:
    """Raises InvalidRun when Spark would take away the executors that members live in."""
    if anchor == "executor" and has_dynamic_allocation(gateway):
        raise InvalidRun(
            'anchor="executor" ends the Spark tasks of members that live on, and dynamic '
            "allocation removes executors without tasks: set spark.dynamicAllocation.enabled to "
            'false, or keep anchor="task"'
        )
