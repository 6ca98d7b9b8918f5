"""One member under a real sentinel, for tests: a task that can be killed, an agent, a member.

Everything waits on pidfds, pipes or files that appear whole, with deadlines.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from executor_agent import traces
from executor_agent.core.supervision import LIFELINE_CLOSED, TOMBSTONE, Tombstone
from executor_agent.processes import (
    ProcessIdentity,
    identity_of,
    is_running,
    open_pidfd,
    signal_if_same,
    state_of,
)

DEADLINE = 20.0  # seconds, for things that take milliseconds; a loaded machine gets its time
PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]
ALL = ("plain", "setsid", "double")
TASK_GONE = (LIFELINE_CLOSED, "task died")  # which one is seen first is the kernel's choice

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, timeout: float = DEADLINE) -> T:
    """The first thing but None or False that `look` returns."""
    give_up_at = time.monotonic() + timeout
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < give_up_at, f"waited {timeout} s for {what}"
        select.select([], [], [], 0.002)


def wait_gone(identities: Iterable[ProcessIdentity], timeout: float = DEADLINE) -> float:
    """Wait until all of them have ended (a zombie has); return the seconds that took."""
    began_at = time.monotonic()
    for identity in identities:
        try:
            pidfd = open_pidfd(identity)
        except ProcessLookupError:
            continue
        assert pidfd is not None
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        left = max(0.0, began_at + timeout - time.monotonic())
        ended = poll.poll(left * 1000)
        os.close(pidfd)
        assert ended, f"{identity} is still there after {timeout} s"
    return time.monotonic() - began_at


def start_stand_in() -> subprocess.Popen[bytes]:
    """A process that does nothing: a daemon, an executor, an innocent."""
    return subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, start_new_session=True)


def identity_of_child(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    identity = identity_of(process.pid)
    assert identity is not None
    return identity


class Member:
    """One launch, from its directory to its tombstone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "member"
        self.directory.mkdir(mode=0o700)
        self.claim = root / "claims" / "member.json"
        self.claim.parent.mkdir(mode=0o700)
        self.pids = root / "pids"
        self.pids.mkdir()
        self.agent_log = root / "agent.log"
        self.marker = uuid.uuid4().hex
        self.processes: dict[str, ProcessIdentity] = {}
        self._task: subprocess.Popen[bytes] | None = None

    @property
    def task(self) -> subprocess.Popen[bytes]:
        assert self._task is not None
        return self._task

    def start(
        self,
        *,
        payload: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
        watch: dict[str, ProcessIdentity] | None = None,
        grace: float = 0.0,
        ready: bool = True,
        **more: Any,
    ) -> None:
        """Start a task that starts all the rest, and wait until the member and the descendants it
        was asked for are there."""
        payload = {"pids": str(self.pids), **(payload or {})}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        launch = {
            "member": "worker:1",
            "run_id": "run",
            "incarnation": "1",
            "marker": self.marker,
            "directory": str(self.directory),
            "claim": str(self.claim),
            "watch": {name: [who.pid, who.create_time] for name, who in (watch or {}).items()},
            "grace": grace,
            "agent_argv": [sys.executable, str(PROGRAMS / "stand_in_agent.py")],
            "agent_env": environment,
            "agent_config": json.dumps({"log": str(self.agent_log), **(agent or {})}),
            "member_argv": [sys.executable, str(PROGRAMS / "nasty_member.py")],
            "member_env": environment,
            "payload": json.dumps(payload),
            "cwd": str(self.root),
            **more,
        }
        launch_file = self.root / "launch.json"
        launch_file.write_text(json.dumps(launch))
        self._task = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "stand_in_task.py"), str(launch_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.processes["task"] = identity_of_child(self._task)
        self.processes["sentinel"] = ProcessIdentity(*self.say()["sentinel"])
        if ready:
            for role in ("member", *payload.get("children", [])):
                self._remember(role)

    def _remember(self, role: str) -> None:
        path = self.pids / role
        eventually(path.exists, f"{role} to start")
        identity = identity_of(int(path.read_text()))
        if identity is not None:  # a leader that leaves at once may be gone
            self.processes[role] = identity

    def say(self) -> dict[str, Any]:
        """The next line of the task."""
        assert self.task.stdout is not None
        assert select.select([self.task.stdout], [], [], DEADLINE)[0], "the task says nothing"
        line = self.task.stdout.readline()
        assert line, "the task ended without a word"
        said: dict[str, Any] = json.loads(line)
        return said

    def result(self) -> Tombstone:
        """What the task returns: the tombstone."""
        return Tombstone.from_dict(self.say())

    def let_return(self) -> None:
        """Make the task return while the sentinel runs."""
        self._tell(b"\n")

    def _tell(self, line: bytes) -> None:
        assert self.task.stdin is not None
        self.task.stdin.write(line)
        self.task.stdin.flush()

    def wait_handed_over(self) -> None:
        """Until the task is no anchor any more."""
        assert self.say() == {"handed_over": True}

    def end_task(self) -> None:
        """Make a task that has handed over end by itself."""
        self._tell(b"end\n")
        assert self.task.wait(DEADLINE) == 0

    def use_task_again(self) -> list[int]:
        """Have the worker run something else; the children that it did not know of."""
        self._tell(b"again\n")
        children: list[int] = self.say()["children"]
        return children

    def let_sentinel_turn(self, orphan: str) -> None:
        """Return when the sentinel has looked around after this: it has buried this orphan.

        It collects first and acts then: of what came before the first of two, it has acted.
        """
        self.kill(orphan)
        who = self.processes[orphan]
        eventually(lambda: identity_of(who.pid) != who, f"{orphan} to be buried")

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        for name in names:
            assert signal_if_same(self.processes[name], number)

    def kill_sentinel_and_task_at_once(self) -> None:
        """Neither sees the other die: a task that is left for a moment sweeps in that moment."""
        self.kill("task", number=signal.SIGSTOP)
        task = self.processes["task"]
        eventually(lambda: state_of(task) == "stopped", "the task to stop")
        self.kill("sentinel", "task")

    def tree(self) -> list[ProcessIdentity]:
        """The member and its descendants."""
        return [who for name, who in self.processes.items() if name not in ("task", "sentinel")]

    def marked(self) -> list[ProcessIdentity]:
        return [found.identity for found in traces.marked() if found.marker == self.marker]

    def agent(self) -> ProcessIdentity:
        """Marked as the member is, but none of the member's processes."""
        others = [who for who in self.marked() if who not in self.tree()]
        assert len(others) == 1
        return others[0]

    def tombstone(self) -> Tombstone:
        """As it lies on disk once the sentinel is gone."""
        wait_gone([self.processes["sentinel"]])
        return Tombstone.from_json((self.directory / TOMBSTONE).read_bytes())

    def heard(self) -> list[dict[str, Any]]:
        """What the agent was told, in order."""
        if not self.agent_log.exists():
            return []
        return [json.loads(line) for line in self.agent_log.read_text().splitlines()]

    def wait_heard(self, event: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            return next((each for each in self.heard() if each["event"] == event), None)

        return eventually(look, f"the agent to hear {event!r}")

    def close(self) -> None:
        """Nothing of the member may be left by now; what is, is killed and named."""
        if self._task is not None:
            self._task.kill()
            self._task.wait()
            for pipe in (self._task.stdin, self._task.stdout):
                assert pipe is not None
                pipe.close()
        give_up_at = time.monotonic() + DEADLINE
        while (left := self._left()) and time.monotonic() < give_up_at:
            select.select([], [], [], 0.01)
        for identity in left:
            signal_if_same(identity, signal.SIGKILL)
        assert not left, f"left behind: {left}, known were {self.processes}"

    def _left(self) -> list[ProcessIdentity]:
        known = [who for who in self.processes.values() if is_running(who)]
        return list({*known, *self.marked()})
