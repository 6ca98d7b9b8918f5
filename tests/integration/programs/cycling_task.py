"""A Spark worker that is used again and again: starts members and sees to their ends, one pair
after the other, and says what it holds itself before and after, as one JSON line.

argv: a folder for what members leave of themselves, and how many cycles; then "detached" for
members that are handed over to an executor. Members live in $TFLEASE_HOME, as ever.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor_agent import member_directory, traces
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.supervision import ENTERED, MEMBER_LOG, TOMBSTONE
from executor_agent.launcher import SentinelProcess
from executor_agent.member_launch import MemberLaunch
from executor_agent.processes import ProcessIdentity, identity_of, my_identity, signal_if_same
from tests.integration.sentinel_helpers import DEADLINE, PROGRAMS, ROOT, eventually, wait_gone

RUN = f"run-{uuid.uuid4().hex}"  # another test run on this machine is none of ours
AT_ONCE = 2  # members, as a machine with two processors has it

# Small, because it is the supervision that is to be tried here, and Python takes long to start. The
# member leaves an orphan behind in any case, which holds nothing of the member's open.
STAND_IN = (sys.executable, "-I", "-S", str(PROGRAMS / "stand_in_agent.py"))
# Where nobody but the agent is left to sweep, it has to be a real one. It needs no coordinator for
# that: it is still trying to reach one.
REAL = (sys.executable, "-m", "executor_agent.agent")
MEMBER = """
sleep 600 <&- >&- 2>&- 3<&- 4<&- 5<&- 6<&- 7<&- &
: > "$1"
{ while [ ! -e "$2" ]; do sleep 0.01; done; } 2>&-
"""


@dataclass
class Cycle:
    """One member. ``up`` is there once it runs, ``leave`` makes it leave."""

    number: int
    up: Path
    leave: Path
    launch: MemberLaunch
    executor: subprocess.Popen[bytes] | None

    def __post_init__(self) -> None:
        self.sentinel = SentinelProcess(self.launch)

    def wait_up(self) -> None:
        eventually(self.up.exists, f"member {self.number}")

    def marked(self) -> list[ProcessIdentity]:
        return [each.identity for each in traces.marked() if each.marker == self.launch.marker]

    def tombstone(self) -> dict[str, Any]:
        tombstone: dict[str, Any] = json.loads((self.launch.directory / TOMBSTONE).read_text())
        return tombstone


def prepare(folder: Path, number: int, detached: bool) -> Cycle:
    member, incarnation = "worker:0", f"attempt-{number}"
    directory = member_directory.create(RUN, member, incarnation)
    up, leave = folder / f"up-{number}", folder / f"leave-{number}"
    executor = None
    watch = {"task": my_identity()}
    if detached:
        up = directory / ENTERED
        executor = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
        watch["executor"] = known(executor.pid)
    swept_by_agent = detached and number % 4 == 3
    stand_in = json.dumps({"log": str(folder / "agent.log")})
    marker = f"{RUN}/{member}/{incarnation}"
    claim = member_directory.home() / "claims" / f"{number}.json"
    claim.parent.mkdir(mode=0o700, exist_ok=True)
    real = AgentConfig(
        coordinator="127.0.0.1:1",  # nobody is there
        token="none",
        run_id=RUN,
        member=member,
        incarnation=incarnation,
        marker=marker,
        executor_id="7",
        directory=str(directory),
        claim=str(claim),
        grace=0.0,
        connect_timeout=600.0,
    ).to_json()
    launch = MemberLaunch(
        member=member,
        run_id=RUN,
        incarnation=incarnation,
        marker=marker,
        directory=directory,
        claim=claim,
        watch=watch,
        grace=0.0,
        agent_argv=REAL if swept_by_agent else STAND_IN,
        agent_env=dict(os.environ),
        agent_config=(real if swept_by_agent else stand_in).encode(),
        member_argv=("sh", "-c", MEMBER, "member", str(up), str(leave)),
        member_env=dict(os.environ),
        payload=b"",
        cwd=ROOT,
        detached=detached,
    )
    return Cycle(number, up, leave, launch, executor)


def known(pid: int) -> ProcessIdentity:
    identity = identity_of(pid)
    assert identity is not None
    return identity


# How a cycle ends, while the task holds it.


def by_itself(cycle: Cycle) -> str:
    cycle.wait_up()
    cycle.leave.touch()
    cycle.sentinel.watch()
    return "member exited"


def by_the_task(cycle: Cycle) -> str:
    if cycle.number % 8 == 2:
        cycle.wait_up()
    return "task let go of its lifeline"  # `finish` does


def by_the_death_of_the_sentinel(cycle: Cycle) -> str:
    match cycle.number % 12:
        case 3:
            cycle.wait_up()
        case 7:  # it is just starting the two
            log = cycle.launch.directory / MEMBER_LOG
            eventually(log.exists, f"the log of member {cycle.number}")
    signal_if_same(cycle.sentinel.identity, signal.SIGKILL)
    return "sentinel was killed by signal 9"


HELD: tuple[Callable[[Cycle], str], ...] = (
    by_itself,
    by_itself,
    by_the_task,
    by_the_death_of_the_sentinel,
)


def held(cycles: list[Cycle]) -> list[str]:
    """What is wrong with these ends."""
    for cycle in cycles:
        cycle.sentinel.start()
    wrong = []
    for cycle in cycles:
        reason = HELD[cycle.number % len(HELD)](cycle)
        tombstone = cycle.sentinel.finish()
        proof = "sweep" if reason.startswith("sentinel") else "kernel"
        found = (tombstone.reason, tombstone.proof, tombstone.survivors)
        if found != (reason, proof, ()):
            wrong.append(f"{cycle.number}: {found}")
    return wrong


# How it ends, when the executor does.


def handed_over(cycles: list[Cycle]) -> list[str]:
    """As `held`."""
    for cycle in cycles:
        cycle.sentinel.start()
    wrong = [f"{cycle.number}: not handed over" for cycle in cycles if not cycle.sentinel.hold()]
    for cycle in cycles:
        assert cycle.executor is not None
        proof = "kernel"
        match cycle.number % 4:
            case 0:
                reason = "member exited"
                cycle.leave.touch()
            case 1:
                reason = "executor died"
                cycle.executor.kill()
            case 2:
                reason = "sentinel was told to terminate"
                signal_if_same(cycle.sentinel.identity, signal.SIGTERM)
            case _:
                reason = "sentinel ended without a word, see the executor's stderr"
                proof = "sweep"
                signal_if_same(cycle.sentinel.identity, signal.SIGKILL)
        wait_gone([cycle.sentinel.identity])
        wait_gone(cycle.marked())  # the agent that sweeps
        tombstone = cycle.tombstone()
        if (tombstone["reason"], tombstone["proof"]) != (reason, proof):
            wrong.append(f"{cycle.number}: {tombstone}")
        cycle.executor.kill()
        cycle.executor.wait()
    return wrong


# What the worker holds.


def holdings() -> dict[str, Any]:
    fds = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    open_files = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]  # but the listing's own
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as file:
        children = file.read().split()
    return {
        "descriptors": sorted(open_files),
        "threads": len(os.listdir("/proc/self/task")),
        "children": children,
    }


def main() -> None:
    folder, count, detached = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["detached"]
    before = holdings()
    wrong = []
    for first in range(0, count, AT_ONCE):
        cycles = [prepare(folder, first + n, detached) for n in range(AT_ONCE)]
        wrong += handed_over(cycles) if detached else held(cycles)
    for thread in threading.enumerate():  # parents of sentinels, on their way out
        if thread is not threading.main_thread():
            thread.join(DEADLINE)
    print(json.dumps({"run": RUN, "before": before, "after": holdings(), "wrong": wrong}))


main()
