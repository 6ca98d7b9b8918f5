"""``tflease doctor --spark``: the executors of a session, looked at by a small job.

    from coordinator.spark.examination import examine
    print(examine(spark))

Owns the job, its deadline and the roll call; what the facts mean is in ``host_checks``.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from coordinator.check import Check, Status, failed, note, ok
from coordinator.core.errors import SparkUnusable, TfleaseError
from coordinator.core.model import VERSION, Roles, RunSpec
from coordinator.spark import addresses, host_checks, preflight
from coordinator.spark.classic import ClassicGateway
from coordinator.spark.gateway import Gateway, open_gateway
from coordinator.spark.jobs import explain
from coordinator.spark.network_checks import Driver
from coordinator.spark.options import Options
from coordinator.spark.roll_call import Heard, RollCall
from executor_agent.examination import ExaminationTask, Facts
from executor_agent.spark_task import MemberTask

TIMEOUT = 60.0
"""Seconds for the job; a task gives up what it looks at a little earlier."""

SETTLING_TIMEOUT = 20.0
"""Seconds for executors to register when the application has just begun."""

MAX_TASKS = 256
"""One a slot; Spark spreads them over the executors before one gets a second."""

_UNKNOWN_SLOTS = 16  # tasks, where Spark does not say how many slots there are
_LOOK_INTERVAL = 0.2
_QUIET_SECONDS = 3.0
_OLDER = "No module named 'executor_agent.examination'"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found. ``str()`` has a line for each check, and what to do."""

    checks: tuple[Check, ...]

    @property
    def is_good(self) -> bool:
        """Whether no line has failed."""
        return not any(each.status is Status.FAILED for each in self.checks)

    def __str__(self) -> str:
        return "\n".join(
            f"{each.status.value:8}{each.name:20}{each.found}"
            + (f"\n{'':28}-> {each.advice}" if each.advice else "")
            for each in self.checks
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's hook: a notebook's last expression is shown so."""
        printer.text("..." if cycle else str(self))


def examine(
    spark: Any,
    *,
    coordinator: str | None = None,
    ports: str | tuple[int, int] | None = None,
    network: str | None = None,
    timeout: float = TIMEOUT,
) -> Examination:
    """Looks at the driver's session and at every executor; takes the slots that are free, for
    seconds, and changes nothing.

    Args:
        spark: a SparkSession, classic or Connect, or a SparkContext.
        coordinator: "grpc://host:port" of a standalone coordinator that executors are to reach.
        ports, network: as for ``TFCluster.run``.
        timeout: seconds for the job on the executors.

    Raises InvalidRun for arguments that make no sense. What is wrong with Spark is in the result.
    """
    daemon = _host_and_port(coordinator)
    wanted = addresses.ports(ports), addresses.network(network)
    return Examination(tuple(_lines(spark, daemon, *wanted, timeout)))


def _lines(
    spark: Any,
    coordinator: str | None,
    ports: tuple[int, int] | None,
    network: str | None,
    timeout: float,
) -> Iterator[Check]:
    try:
        gateway = open_gateway(spark, has_daemon=True)
    except TfleaseError as error:
        yield failed("Spark", error.message, "pass a session that lives")
        return
    master = gateway.master or "(its server does not say which master)"
    yield ok("Spark", f"{spark.version}, {master}")
    try:
        preflight.check_environment(gateway)
    except SparkUnusable as error:
        yield failed("Spark's settings", error.message, "change that, and start the session anew")
    slots, line = _slots(gateway)
    yield line
    tasks = min(MAX_TASKS, slots or _UNKNOWN_SLOTS)
    task = ExaminationTask(
        members=tuple(map(str, range(tasks))),
        driver=None,
        coordinator=coordinator,
        ports=ports,
        network=network,
    )
    heard = Heard()
    try:
        with _roll_call(gateway, task) as call:
            task = call.task
            found = _run(gateway, task, timeout)
            heard = call.close()
    except OSError as error:
        yield failed(
            "driver's address",
            f"nothing can listen on it: {error.strerror or error}",
            "set spark.driver.host or SPARK_LOCAL_IP to an address of this machine",
        )
        return
    if isinstance(found, Check):
        yield found
        return
    yield from host_checks.lines(
        Driver(
            python=platform.python_version(),
            tflease=VERSION,
            java=_java_of(spark),
            address=task.driver,
            coordinator=coordinator,
            unreached=heard.unreached,
        ),
        found,
    )


class _RollCall:
    """The roll as a task answers it; nobody calls it on Spark Connect, where the driver's machine
    may be out of the executors' reach."""

    def __init__(self, gateway: Gateway, task: ExaminationTask) -> None:
        self._call: RollCall | None = None
        self.task = task
        if not isinstance(gateway, ClassicGateway):
            return
        options = Options(RunSpec(Roles(worker=1)), preload=())  # where a run's coordinator listens
        bind, _ = options.bind_address(gateway.master, gateway.driver_host)
        told, _ = options.advertised(gateway.driver_host or socket.gethostname())
        self._call = RollCall(bind, task.name, len(task.members))
        self.task = replace(task, driver=addresses.joined(told, self._call.port))

    def close(self) -> Heard:
        """Idempotent."""
        return self._call.close() if self._call is not None else Heard()


@contextmanager
def _roll_call(gateway: Gateway, task: ExaminationTask) -> Iterator[_RollCall]:
    call = _RollCall(gateway, task)
    try:
        yield call
    finally:
        call.close()


def _slots(gateway: Gateway) -> tuple[int, Check]:
    """How many there are, once executors have had time to register; 0 when Spark does not say."""
    name = "task slots"
    if not isinstance(gateway, ClassicGateway):
        text = "Spark Connect does not say how many there are, nor on how many hosts"
        return preflight.capacity(gateway).slots, note(name, text)
    if preflight.has_dynamic_allocation(gateway) and gateway.registered_slots() == 0:
        text = "none yet: with dynamic allocation executors come for the job that follows"
        return 0, note(name, text)
    now = _settled_slots(gateway)
    expected = preflight.capacity(gateway)
    if now == 0:
        return 0, failed(
            name,
            "no executor has registered",
            "look at the cluster manager: are there workers, and cores and memory that nobody else "
            "has? (spark.executor.cores, spark.executor.memory)",
        )
    busy = gateway.slots().busy
    text = f"{now} ({expected.how})" + (f", {busy} busy now" if busy > 0 else "")
    if expected.is_final and now < expected.slots and not preflight.has_dynamic_allocation(gateway):
        return now, note(
            name,
            f"{text}, though {expected.slots} were asked for",
            "executors are missing or late: look at the cluster manager",
        )
    return now, ok(name, text)


def _settled_slots(gateway: Gateway) -> int:
    """As many as were asked for; or those that are there when no more come."""
    began = changed = time.monotonic()
    now = gateway.registered_slots()
    while time.monotonic() - began < SETTLING_TIMEOUT:
        expected = preflight.capacity(gateway)
        if now and expected.is_final and now >= expected.slots:
            break
        if now and not expected.is_final and time.monotonic() - changed > _QUIET_SECONDS:
            break
        time.sleep(_LOOK_INTERVAL)
        before, now = now, gateway.registered_slots()
        changed = changed if now == before else time.monotonic()
    return now


def _run(gateway: Gateway, task: ExaminationTask, timeout: float) -> list[Facts] | Check:
    """What the tasks say, or why they do not."""
    tag = f"tflease-examination-{task.name}"
    found: list[list[Facts] | Check] = []

    def work() -> None:
        # What a gateway needs of a task, this one has: members to count, and to be callable.
        same = cast(MemberTask, task)
        try:
            rows = gateway.run_job(same, (tag,), "tflease doctor")
            found.append([Facts.from_json(row.report) for row in rows])
        except Exception as error:  # whatever Spark raises, or its connection
            found.append(_why_failed(error))

    thread = gateway.thread(work)
    thread.daemon = True
    thread.start()
    thread.join(timeout)
    if found:
        return found[0]
    running = gateway.active_tasks(tag)
    gateway.cancel(tag)
    slots = gateway.slots()
    at_work = "" if running is None else f"; {running} of its {len(task.members)} tasks run"
    busy = f"; {slots.busy} of {slots.total} slots are busy" if slots.busy > 0 else ""
    return failed(
        "executors",
        f"the job has not ended within {timeout:.0f} s{at_work}{busy}",
        "when other jobs have the slots, wait for them; else look at the executors' stderr in "
        "Spark's UI, and run `tflease doctor` on their hosts",
    )


def _why_failed(error: Exception) -> Check:
    text = explain(error)
    if _OLDER in str(error):
        advice = f"install tflease {VERSION} for the executors' Python, as the driver has it"
        return failed("executors", "they have another version of tflease", advice)
    return failed(
        "executors",
        f"the job failed: {text}",
        "executors run the Python of PYSPARK_PYTHON, which needs the driver's minor version and "
        "tflease: `tflease doctor` on an executor's host says what that one lacks",
    )


def _java_of(spark: Any) -> str:
    """Of the driver; "" when it cannot be told, as with Spark Connect."""
    with suppress(Exception):  # internal, and another error on each kind of session
        context = getattr(spark, "sparkContext", spark)
        return str(context._jvm.java.lang.System.getProperty("java.version"))
    return ""


def _host_and_port(coordinator: str | None) -> str | None:
    """Also of one that speaks TLS: a connection is all that is tried."""
    if coordinator is None:
        return None
    return addresses.daemon(f"grpc://{coordinator.rpartition('://')[2]}")
