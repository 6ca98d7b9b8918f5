"""What each member's task asks of Spark: GPUs for the members that want some, none for the others.

Spark's term is a *resource profile*. Which one a member gets is decided here from the
configuration alone, without pyspark; ``build`` alone makes Spark's own object of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Role, Roles
from coordinator.spark.gateway import Gateway, Profile

EXECUTOR_AMOUNT = "spark.executor.resource.gpu.amount"
TASK_AMOUNT = "spark.task.resource.gpu.amount"

_WITH_PROFILES = ("spark://", "local-cluster[", "yarn", "k8s")
"""Master URLs of the cluster managers for which Spark has resource profiles."""


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """What the configuration says of GPUs. ``per_executor``: 0 where Spark does not manage them;
    ``per_task``: what a task without a profile takes, less than 1 where tasks share a GPU."""

    per_executor: int = 0
    per_task: float = 0.0
    cpus: float = 1.0
    cores: int = 0
    script: str = ""
    vendor: str = ""
    master: str = ""
    is_dynamic: bool = False

    @classmethod
    def of(cls, gateway: Gateway) -> GpuSettings:
        """Raises SparkUnusable for an amount that is no number."""
        return cls(
            per_executor=int(_number(gateway, EXECUTOR_AMOUNT, 0)),
            per_task=_number(gateway, TASK_AMOUNT, 0),
            cpus=_number(gateway, "spark.task.cpus", 1),
            cores=int(_number(gateway, "spark.executor.cores", 0)),
            script=gateway.conf("spark.executor.resource.gpu.discoveryScript"),
            vendor=gateway.conf("spark.executor.resource.gpu.vendor"),
            master=gateway.master,
            is_dynamic=gateway.conf("spark.dynamicAllocation.enabled").lower() == "true",
        )

    @property
    def is_local(self) -> bool:
        """Executor and driver are one process, to which Spark assigns no GPUs."""
        return self.master == "local" or self.master.startswith("local[")

    @property
    def has_profiles(self) -> bool:
        """Whether Spark takes a profile here. A server that hides its master is asked to."""
        return not self.master or self.master.startswith(_WITH_PROFILES)


def _number(gateway: Gateway, name: str, default: float) -> float:
    text = gateway.conf(name)
    try:
        found = float(text or default)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise SparkUnusable(f"{name}={text}: must be a number")
    return found


def of_roles(gpus: Roles, settings: GpuSettings) -> dict[Role, Profile | None]:
    """The profile for each role; None: the application's own, which every job has.

    Without dynamic allocation a profile changes what a task takes of the executors that are there.
    With it, a profile always gets executors of its own: all members share one, or none where the
    application's own takes as many GPUs as the members need.
    """
    if gpus.total == 0 or settings.per_executor == 0 or settings.is_local:
        return dict.fromkeys(Role)
    if not settings.is_dynamic:
        return {role: _task_profile(gpus.count(role), settings) for role in Role}
    most = max(gpus.count(role) for role in Role)
    return dict.fromkeys(Role, None if settings.per_task >= most else _shared(most, settings))


def of_feeders(settings: GpuSettings) -> Profile | None:
    """The profile for tasks that feed members, which want no GPU: where a task takes one unless it
    says otherwise, members that hold all GPUs would leave feeders no slot. With dynamic allocation
    a profile means executors of its own, which would be far from the members: none, then."""
    if settings.per_executor == 0 or settings.is_local or settings.is_dynamic:
        return None
    return _task_profile(0, settings) if settings.has_profiles else None


def _task_profile(count: int, settings: GpuSettings) -> Profile | None:
    if count == settings.per_task:
        return None
    return Profile(cpus=settings.cpus, gpus=count)


def _shared(count: int, settings: GpuSettings) -> Profile:
    return Profile(
        cpus=settings.cpus,
        gpus=count,
        executor_gpus=settings.per_executor,
        executor_cores=settings.cores,
        discovery_script=settings.script,
        vendor=settings.vendor,
    )


def taken(gpus: Roles, settings: GpuSettings) -> Mapping[Role, float]:
    """GPUs that Spark sets aside for one task of each role."""
    chosen = of_roles(gpus, settings)
    return {
        role: settings.per_task if profile is None else float(profile.gpus)
        for role, profile in chosen.items()
    }


_built: dict[tuple[str, Profile], Any] = {}
_building = threading.Lock()


def build(profile: Profile, application_id: str) -> Any:
    """Spark's own object, one for each application: to Spark another object is another profile,
    with other executors under dynamic allocation."""
    with _building:
        key = (application_id, profile)
        if key not in _built:
            _built[key] = _make(profile)
        return _built[key]


def _make(profile: Profile) -> Any:
    from pyspark.resource import (
        ExecutorResourceRequests,
        ResourceProfileBuilder,
        TaskResourceRequests,
    )

    whole = profile.cpus == int(profile.cpus)  # older ones of Spark take nothing else
    task = TaskResourceRequests().cpus(int(profile.cpus) if whole else profile.cpus)
    if profile.gpus:
        task = task.resource("gpu", profile.gpus)
    builder = ResourceProfileBuilder().require(task)
    if profile.executor_gpus:
        executor = ExecutorResourceRequests().resource(
            "gpu", profile.executor_gpus, profile.discovery_script, profile.vendor
        )
        if profile.executor_cores:
            executor = executor.cores(profile.executor_cores)
        builder = builder.require(executor)
    return builder.build
