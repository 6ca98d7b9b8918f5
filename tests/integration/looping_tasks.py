"""Members whose tasks start them once more: real sentinels, agents and processes; only Spark is
missing. A task is a thread of the test, or a process that can be interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.core import events
from coordinator.core.model import RunId, RunPhase, RunSpec, RunView
from coordinator.testing import Serving
from executor_agent.spark_task import MemberTask
from tests.integration.gpu_members import DEADLINE, _by_value, until

CAUSES = ("killed by signal", "out of memory", "agent lost", "peer lost", "stalled", "GPU lost")
PROGRAM = Path(__file__).parent / "programs" / "looping_task.py"
ROOT = Path(__file__).parents[2]


def telling(args: Any, ctx: Any) -> dict[str, Any]:
    """Says where it is, in a file that appears whole. Waits up to the generation of ``waits``."""
    import json
    import os
    import time

    here = {"pid": os.getpid(), "generation": ctx.generation, "cluster": ctx.cluster_spec}
    name = f"{ctx.job_name}-{ctx.task_index}"
    partial = os.path.join(args["folder"], f".{name}")
    with open(partial, "w") as file:
        json.dump(here, file)
    os.rename(partial, os.path.join(args["folder"], f"{name}.{ctx.generation}"))
    if args["reports"]:
        ctx.report_progress(ctx.generation)
    while ctx.generation <= args["waits"]:
        if ctx.should_stop and args["obeys"]:
            return here
        time.sleep(0.01)
    return here


class LoopingTasks:
    """Of one run."""

    def __init__(self, coordinator: Serving, run_id: RunId, folder: Path, **changes: Any) -> None:
        folder.mkdir()
        self.coordinator, self.run_id, self._folder = coordinator, run_id, folder
        arguments = {"folder": str(folder), "waits": 1, "obeys": False, "reports": False}
        members = [str(each.id) for each in coordinator.view(run_id).members]
        plain = MemberTask(
            members=tuple(members),
            run_id=run_id,
            coordinator=coordinator.address,
            token=coordinator.token,
            payload=_by_value(telling, {**arguments, **changes.pop("arguments", {})}),
            grace={"chief": 0.0, "worker": 0.2, "ps": 0.0},
            preload=(),
            connect_timeout=20.0,
            restart_causes=CAUSES,
        )
        self.task = replace(plain, **changes)
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *members: str) -> None:
        """In threads. Returns at once."""
        for member in members or self.task.members:
            running = asyncio.to_thread(self.task._run, member, incarnation_of(member), 1)
            self._running[member] = asyncio.create_task(running)

    def start_process(self, member: str) -> subprocess.Popen[str]:
        """Returns at once."""
        path = self._folder / "task"
        path.write_bytes(pickle.dumps(self.task))
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), member, incarnation_of(member)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    async def place(self, member: str, generation: int, *, without: int = 0) -> dict[str, Any]:
        """What it said when it had entered ``main_fun``; ``without``: the pid of one before."""
        path = self._folder / f"{member.replace(':', '-')}.{generation}"

        def said() -> dict[str, Any]:
            return dict(json.loads(path.read_text())) if path.exists() else {"pid": without}

        await until(lambda: said()["pid"] != without, f"{member} in generation {generation}")
        return said()

    async def kill(self, member: str, generation: int = 1) -> dict[str, Any]:
        """SIGKILL to its process, whose place is returned."""
        place = await self.place(member, generation, without=0)
        os.kill(place["pid"], signal.SIGKILL)
        return place

    async def row(self, member: str = "worker:0") -> dict[str, Any]:
        """What its task returns."""
        async with asyncio.timeout(DEADLINE):
            return await self._running[member]

    async def until(self, phase: RunPhase) -> RunView:
        async with asyncio.timeout(DEADLINE):
            return await self.coordinator.until(self.run_id, lambda run: run.phase is phase)

    def stop(self) -> None:
        """The whole run."""
        self.coordinator.engine.feed(events.StopRequested(self.run_id, "enough", 0.0))

    async def close(self) -> None:
        """Nobody is left then."""
        if not self.coordinator.view(self.run_id).phase.is_terminal:
            self.stop()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=DEADLINE)
        for process in self._processes:
            await asyncio.to_thread(process.communicate, timeout=DEADLINE)


def incarnation_of(member: str) -> str:
    """The first one, as it is unique to the task."""
    return f"{member[-1]}-{member[0]}"


@asynccontextmanager
async def looping_tasks(
    coordinator: Serving, folder: Path, spec: RunSpec, **changes: Any
) -> AsyncIterator[LoopingTasks]:
    """Of a new run; none is started yet. ``changes``: of the task."""
    tasks = LoopingTasks(coordinator, coordinator.create_run(spec), folder, **changes)
    try:
        yield tasks
    finally:
        await tasks.close()
