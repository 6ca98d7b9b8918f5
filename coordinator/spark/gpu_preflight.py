"""What is checked of GPUs on the driver before any job is started: Spark would let a task that asks
for more than there ever is wait for ever (R1, G4).

What no configuration tells, whether the GPUs are there and free, each agent finds on its host.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from coordinator.core.errors import NotEnoughSlots, SparkUnusable
from coordinator.core.model import Role, Roles, RunSpec
from coordinator.spark import profiles
from coordinator.spark.gateway import Gateway
from coordinator.spark.profiles import EXECUTOR_AMOUNT, TASK_AMOUNT, GpuSettings

_log = logging.getLogger("tflease")

_warned: set[str] = set()  # applications


def check_gpus(gateway: Gateway, spec: RunSpec) -> None:
    """Raises NotEnoughSlots when Spark can never give the members their GPUs, SparkUnusable when
    its configuration is in the way."""
    settings = GpuSettings.of(gateway)
    _check_local(settings)
    if settings.per_executor == 0 or settings.is_local:
        return  # Spark manages no GPUs: the agents find out
    _check_one_member(spec.gpus, settings)
    _check_profiles(spec.gpus, settings)
    _check_capacity(gateway, spec, settings)
    if spec.gpus.total == 0 and settings.per_task > 0:
        _warn_of_idle_gpus(gateway, settings)


def _check_local(settings: GpuSettings) -> None:
    if settings.is_local and settings.per_task > 0:
        raise SparkUnusable(
            f"with master {settings.master} Spark assigns no GPUs, and with "
            f"{TASK_AMOUNT}={settings.per_task:g} every task waits for one for ever: unset it. "
            "gpus=... does not need it: the GPUs of this machine are leased"
        )


def _check_one_member(gpus: Roles, settings: GpuSettings) -> None:
    for role in Role:
        count = gpus.count(role)
        if count > settings.per_executor:
            raise NotEnoughSlots(
                f"each {role.value} needs {count} GPUs, and an executor has "
                f"{settings.per_executor} ({EXECUTOR_AMOUNT}={settings.per_executor}): ask for at "
                f"most {settings.per_executor}, or set {EXECUTOR_AMOUNT}={count} where the hosts "
                "have so many",
                {"wanted": str(count), "found": str(settings.per_executor)},
            )


def _check_profiles(gpus: Roles, settings: GpuSettings) -> None:
    needs = any(profile is not None for profile in profiles.of_roles(gpus, settings).values())
    if needs and not settings.has_profiles:
        most = max(gpus.count(role) for role in Role)
        raise SparkUnusable(
            f"Spark has resource profiles on standalone clusters, YARN and Kubernetes, not with "
            f"master {settings.master}: set {TASK_AMOUNT}={most} and ask for {most} GPUs for every "
            f"role, or unset {EXECUTOR_AMOUNT} so that tflease finds the GPUs itself"
        )


def _check_capacity(gateway: Gateway, spec: RunSpec, settings: GpuSettings) -> None:
    """Never refuses what could be seated: it takes every executor as empty."""
    executors, how = _most_executors(gateway, settings)
    taken = profiles.taken(spec.gpus, settings)
    if executors == 0:
        return  # not known, or not final
    total = sum(spec.roles.count(role) * amount for role, amount in taken.items())
    have = executors * settings.per_executor
    if total <= have and all(
        _count(spec.roles, taken, least) <= executors * _tasks_of_one(least, settings)
        for least in set(taken.values())
        if least > 0
    ):
        return
    raise NotEnoughSlots(
        f"the run needs {total:g} GPUs at once ({_spelled(spec.roles, taken)}), but Spark has "
        f"{have} at most: {how} with {settings.per_executor} each ({EXECUTOR_AMOUNT}). Ask for "
        f"fewer members or GPUs, or give Spark more executors with GPUs{_unasked(spec, settings)}",
        {"needed": f"{total:g}", "gpus": str(have)},
    )


def _count(roles: Roles, taken: Mapping[Role, float], least: float) -> int:
    """Members for whose task Spark sets aside so many GPUs or more."""
    return sum(roles.count(role) for role, amount in taken.items() if amount >= least)


def _tasks_of_one(amount: float, settings: GpuSettings) -> int:
    """Tasks of this amount that one executor can have at once. Of less than 1 several share one
    GPU, but none has parts of two."""
    if amount < 1:
        return settings.per_executor * int(1 / amount)
    return int(settings.per_executor // amount)


def _spelled(roles: Roles, taken: Mapping[Role, float]) -> str:
    return " + ".join(
        f"{taken[role]:g} for each of {roles.count(role)} {role.value}"
        for role in Role
        if roles.count(role) and taken[role]
    )


def _unasked(spec: RunSpec, settings: GpuSettings) -> str:
    """Advice where tasks take GPUs that nobody has asked for."""
    taken = profiles.taken(spec.gpus, settings)
    idle = any(taken[role] > spec.gpus.count(role) for role in Role if spec.roles.count(role))
    return f", or set {TASK_AMOUNT}=0: other tasks than those with GPUs need none" if idle else ""


def _most_executors(gateway: Gateway, settings: GpuSettings) -> tuple[int, str]:
    """How many executors there will be at most, 0 where that is not known; and in words."""
    cluster = re.fullmatch(r"local-cluster\[\s*(\d+)\s*,.*", settings.master)
    if cluster:
        return int(cluster[1]), f"{cluster[1]} executors"
    name = "spark.executor.instances"
    if settings.is_dynamic:
        name = "spark.dynamicAllocation.maxExecutors"
    text = gateway.conf(name)
    if not text.isdecimal() or not settings.master.startswith(("yarn", "k8s")):
        return 0, ""  # a standalone cluster goes by cores
    slots = max(1, int(max(1, settings.cores) // settings.cpus))
    if gateway.registered_slots() > int(text) * slots:
        return 0, ""  # not every cluster manager keeps to it
    return int(text), f"{text} executors ({name})"


def _warn_of_idle_gpus(gateway: Gateway, settings: GpuSettings) -> None:
    """Once for each application: it is about its configuration, not about this run."""
    if gateway.application_id in _warned:
        return
    _warned.add(gateway.application_id)
    _log.warning(
        "Spark sets GPUs aside for every task (%s=%g), but this run has not asked for any: its "
        "members see none (CUDA_VISIBLE_DEVICES is empty) and train on CPUs. Pass "
        "gpus=Roles(worker=1) to lease them",
        TASK_AMOUNT,
        settings.per_task,
    )
