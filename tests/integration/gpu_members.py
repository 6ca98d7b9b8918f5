"""Whole members with GPUs that are files: sentinel, agent and the user's process are real, Spark
and the devices are not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from coordinator.core.gpu import LeaseView
from coordinator.core.lease_book import LeaseBook
from coordinator.core.model import ExitReport, Role, Roles, RunSpec, RunView
from coordinator.testing import Serving
from executor_agent import claims, member_directory
from executor_agent.core.claim import AGENT, MEMBER, SENTINEL, Claim
from executor_agent.processes import ProcessIdentity, signal_if_same
from executor_agent.spark_task import MemberTask

DEADLINE = 40.0

# Nothing happens by the clock.
UNHURRIED = RunSpec(
    Roles(worker=1),
    gpus=Roles(worker=1),
    beat_interval=0.1,
    liveness_ttl=120.0,
    fence_timeout=120.0,
    grace={Role.WORKER: 0.0},
)


def using_gpus(args: Any, ctx: Any) -> dict[str, Any]:
    """What the members run: says what it was given, and waits until it is let go on."""
    import json
    import os
    import sys
    import time
    from pathlib import Path

    folder = Path(args["folder"])
    links = {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    said = {
        "gpus": list(ctx.gpus),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "order": os.environ.get("CUDA_DEVICE_ORDER"),
        "claims": {fd: link for fd, link in links.items() if link.endswith(".claim")},
        "inheritable": [fd for fd in links if fd in links and link_is_claim(links[fd], int(fd))],
        "at_import": getattr(sys.modules.get("gpu_probe"), "VISIBLE", None),
    }
    temporary = folder / "said.tmp"
    temporary.write_text(json.dumps(said))
    temporary.rename(folder / "said")
    while args["wait"] and not (folder / "go").exists() and not ctx.should_stop:
        time.sleep(0.005)
    return said


def link_is_claim(link: str, fd: int) -> bool:
    return link.endswith(".claim") and os.get_inheritable(fd)


@dataclass
class GpuMember:
    """One run of one worker, from the task on."""

    coordinator: Serving
    folder: Path
    spec: RunSpec = UNHURRIED
    main_fun: Callable[..., Any] = using_gpus
    wait: bool = True
    env: dict[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.run_id = self.coordinator.create_run(self.spec)
        self._tasks: list[asyncio.Task[dict[str, Any]]] = []

    def start(self, member: str = "worker:0") -> None:
        """Returns at once."""
        args = {"folder": str(self.folder), "wait": self.wait}
        task = MemberTask(
            members=(member,),
            run_id=self.run_id,
            coordinator=self.coordinator.address,
            token=self.coordinator.token,
            payload=_by_value(self.main_fun, args),
            grace={"worker": 0.0, "ps": 0.0},
            preload=self.preload,
            connect_timeout=20.0,
            env=self.env,
            gpus={role.value: self.spec.gpus.count(role) for role in Role},
        )
        running = asyncio.to_thread(task._run, member, f"attempt-{member[-1]}", 1)
        self._tasks.append(asyncio.create_task(running))

    async def said(self) -> dict[str, Any]:
        """What the user's function has found; waits for it."""
        path = self.folder / "said"
        await until(path.exists, f"main_fun of {self.run_id} to begin")
        said: dict[str, Any] = json.loads(path.read_text())
        return said

    def let_go_on(self) -> None:
        (self.folder / "go").touch()

    async def row(self) -> dict[str, Any]:
        """What the task returns."""
        async with asyncio.timeout(DEADLINE):
            return await self._tasks[0]

    async def report(self) -> ExitReport:
        """What the agent has told, once the run is over."""
        async with asyncio.timeout(DEADLINE):
            run = await self.coordinator.ended(self.run_id)
        report = run.members[0].exit
        assert report is not None
        return report

    async def until(self, condition: Callable[[RunView], bool]) -> RunView:
        async with asyncio.timeout(DEADLINE):
            return await self.coordinator.until(self.run_id, condition)

    async def obstacle(self, text: str) -> str:
        """Waits until that is in the way of its GPU."""

        def look() -> str:
            found = self.view().members[0].gpu_obstacles
            return "; ".join(found) if any(text in each for each in found) else ""

        await until(lambda: bool(look()), f"{text!r} to be in the way")
        return look()

    def view(self) -> RunView:
        return self.coordinator.view(self.run_id)

    def claim(self) -> Claim:
        """Of the member, not of its GPUs."""
        found = claims.read_all(member_directory.claims_directory())
        [claim] = [claim for _, claim in found if claim.run_id == self.run_id]
        return claim

    def signal(self, number: int, *names: str) -> None:
        processes = self.claim().processes
        for name in names or (AGENT, MEMBER, SENTINEL):
            assert signal_if_same(ProcessIdentity(*processes[name]), number)

    def freeze(self) -> None:
        """The whole tree."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    async def close(self) -> None:
        """Nothing of it is left then."""
        self.let_go_on()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DEADLINE)
        assert all(task.done() for task in self._tasks)


def _by_value(main_fun: Callable[..., Any], args: Any) -> bytes:
    """The member must not have to import a module of tests."""
    module = sys.modules[main_fun.__module__]
    cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps((main_fun, args)))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


async def until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {DEADLINE} s for {what}"
        await asyncio.sleep(0.005)


def book(coordinator: Serving) -> LeaseBook:
    return coordinator.engine._machine.book


def gpu(coordinator: Serving, uuid: str) -> LeaseView:
    """What stands in the book of it."""
    return book(coordinator).view(uuid)
