"""`TFCluster.run` on a Spark that is a stand-in, whose jobs are fake members over real gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle

from coordinator import Roles, TFCluster
from coordinator.core.access import tls_of
from coordinator.core.model import VERSION, Cause, ExitReport, MemberId, Proof, RunId
from coordinator.testing import COMPLETED, FakeExecutor, Script
from tests.coordinator.spark.fake_spark import FakeSpark, Job, Row

SERVES = Script(serves=True)
HANGS = Script(serves=True, obeys_stop=False)
RAISES = Script(
    report=ExitReport(
        Cause.USER_EXCEPTION,
        exception_type="ValueError",
        message="bad labels",
        proof=Proof.KERNEL,
    )
)


def member_of(job: Job) -> MemberId:
    return MemberId.parse(job.task.members[0])


def playing(
    script: Script, address: str = "", gate: threading.Event | None = None
) -> Callable[[Job], list[Row]]:
    """A job that is a member with this behaviour; one that hangs is gone when it is cancelled.
    ``address``: another way to the coordinator than the one that its task was told. ``gate``: its
    ``main_fun`` returns when this is set."""

    async def open_at(gate: threading.Event, opened: asyncio.Event) -> None:
        await asyncio.to_thread(gate.wait, 60)
        opened.set()

    async def play(job: Job) -> Row:
        opened = asyncio.Event()
        if gate is None:
            return await live(job, script)
        async with asyncio.TaskGroup() as group:
            group.create_task(open_at(gate, opened))
            return await live(job, replace(script, works_until=opened))

    async def live(job: Job, script: Script) -> Row:
        task = job.task
        async with FakeExecutor(
            address or task.coordinator,
            task.token,
            RunId(task.run_id),
            member_of(job),
            tls=tls_of(task.tls),
        ) as executor:
            executor.info = replace(executor.info, tflease_version=VERSION)
            report = await executor.live(script)
            if not script.obeys_stop:
                await asyncio.to_thread(job.cancelled.wait, 60)
                raise RuntimeError("Job was cancelled")
            return Row(
                task.members[0],
                executor.incarnation,
                report=(report or COMPLETED).to_json(),
                result=bytearray(cloudpickle.dumps(task.members[0])),
            )

    return lambda job: [asyncio.run(play(job))]


def run(spark: FakeSpark, **more: Any) -> TFCluster:
    options = {"roles": Roles(worker=2), "progress": False, "name": "mnist", **more}
    return TFCluster.run(spark, lambda args, ctx: None, **options)
