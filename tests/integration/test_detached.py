"""Anchor = executor, with real processes: until the hand-over the task is the anchor, after it the
executor alone. Whatever happens to whom and when, nothing of the member is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from executor_agent.core.supervision import ENTERED, MEMBER_EXITED
from executor_agent.processes import ProcessIdentity, is_running
from tests.integration.sentinel_helpers import (
    TASK_GONE,
    Member,
    identity_of_child,
    start_stand_in,
    wait_gone,
)

pytestmark = pytest.mark.slow

ORPHANS = ["double", "double-2"]
CHILDREN = ["plain", "setsid", *ORPHANS]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


@pytest.fixture
def executor() -> Iterator[subprocess.Popen[bytes]]:
    yield from stand_in()


@pytest.fixture
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    yield from stand_in()


def stand_in() -> Iterator[subprocess.Popen[bytes]]:
    process = start_stand_in()
    yield process
    process.kill()
    process.wait()


def start(
    member: Member,
    executor: subprocess.Popen[bytes],
    *,
    enters: bool = True,
    payload: dict[str, Any] | None = None,
    watch: dict[str, ProcessIdentity] | None = None,
    **more: Any,
) -> None:
    """A member that is to be handed over once it has entered."""
    entered = {"entered": str(member.directory / ENTERED)} if enters else {}
    member.start(
        payload={"children": CHILDREN, "ignore": True, **entered, **(payload or {})},
        watch={"executor": identity_of_child(executor), **(watch or {})},
        detached=True,
        **more,
    )


def test_a_stray_signal_does_not_stop_it_and_is_not_ignored_by_its_member(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """What the kernel sends to an attached sentinel is a batch system's word to this one."""
    hand_over(member, executor)
    member.kill("sentinel", number=signal.SIGUSR1)
    pid = member.processes["member"].pid
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    assert not ignored & 1 << signal.SIGUSR1 - 1
    member.kill("sentinel", number=signal.SIGTERM)
    assert member.tombstone().reason == "sentinel was told to terminate"


def hand_over(member: Member, executor: subprocess.Popen[bytes], **more: Any) -> None:
    start(member, executor, **more)
    member.wait_handed_over()


def assert_untouched(member: Member) -> None:
    """After everything that has happened so far, once the sentinel has seen it."""
    for orphan in ORPHANS:
        member.let_sentinel_turn(orphan)
    assert not [event for event in member.heard() if event["event"] == "stopping"]
    for name in ("sentinel", "member", "plain", "setsid"):
        assert is_running(member.processes[name]), name


def end(member: Member, executor: subprocess.Popen[bytes]) -> None:
    """The executor goes, and everything with it, proven by the kernel."""
    executor.kill()
    tombstone = member.tombstone()
    assert (tombstone.reason, tombstone.proof) == ("executor died", "kernel")
    assert not any(is_running(who) for who in member.tree())
    assert member.marked() == []


# Before the hand-over: the task is the anchor.


def test_a_task_killed_before_the_hand_over_takes_every_descendant_with_it(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """O1: Spark cancels the job while the gang forms."""
    start(member, executor, enters=False)
    member.kill("task")
    tombstone = member.tombstone()
    assert tombstone.reason in TASK_GONE
    assert tombstone.proof == "kernel"
    assert not any(is_running(who) for who in member.tree())
    assert executor.poll() is None


@pytest.mark.parametrize("anchor", ["executor", "daemon"])
def test_executor_and_daemon_are_anchors_before_the_hand_over(
    member: Member,
    executor: subprocess.Popen[bytes],
    daemon: subprocess.Popen[bytes],
    anchor: str,
) -> None:
    """O3; without its daemon Spark could not end the task any more."""
    start(member, executor, enters=False, watch={"daemon": identity_of_child(daemon)})
    {"executor": executor, "daemon": daemon}[anchor].kill()
    tombstone = member.result()
    assert (tombstone.reason, tombstone.proof) == (f"{anchor} died", "kernel")
    assert not any(is_running(who) for who in member.tree())


def test_a_sentinel_killed_before_the_hand_over_is_replaced_by_its_task(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    start(member, executor, enters=False)
    member.wait_heard("started")
    member.kill("sentinel")
    tombstone = member.result()
    assert tombstone.reason == "sentinel ended without a word, see the executor's stderr"
    assert tombstone.proof == "sweep"
    assert not any(is_running(who) for who in member.tree())


def test_a_sentinel_killed_before_the_hand_over_takes_the_group_with_it(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """D1 is its alone from the start: a frozen task holds no end that would spare the group."""
    start(member, executor, enters=False, payload={"children": ["plain"]}, grace=30.0)
    member.kill("task", number=signal.SIGSTOP)
    member.kill("sentinel")
    wait_gone([member.processes["member"], member.processes["plain"]])
    member.kill("task", number=signal.SIGCONT)
    assert member.result().proof == "sweep"


def test_a_member_that_never_enters_is_reported_by_its_task(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    start(member, executor, enters=False, payload={"children": [], "exit": 3})
    tombstone = member.result()
    assert (tombstone.exit_code, tombstone.reason) == (3, MEMBER_EXITED)
    assert tombstone.proof == "kernel"


# The hand-over itself.


@pytest.mark.parametrize("attempt", range(5))
def test_a_member_that_ends_while_it_is_handed_over_is_reported_or_handed_over(
    member: Member, executor: subprocess.Popen[bytes], attempt: int
) -> None:
    """Who comes first is the kernel's choice. That nothing is left, and proven, is not."""
    start(member, executor, payload={"children": [], "exit": 0})
    said = member.say()
    tombstone = member.tombstone()
    assert said in ({"handed_over": True}, tombstone.to_dict() | {"survivors": []})
    assert (tombstone.exit_code, tombstone.reason) == (0, MEMBER_EXITED)
    assert tombstone.proof == "kernel"
    assert member.marked() == []


def test_a_member_that_is_being_stopped_is_not_handed_over(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """The task stays for the report: a stop is not taken back by a hand-over."""
    record = str(member.root / "stop")
    start(
        member,
        executor,
        payload={"children": [], "ignore": False, "on_stop": {"record": record, "enter": True}},
        agent={
            "commands": [{"command": "stop", "grace": 0.5, "reason": "cancelled"}],
            "after": str(member.pids / "member"),
        },
    )
    tombstone = member.result()
    assert (member.directory / ENTERED).exists()
    assert (tombstone.reason, tombstone.signal) == ("cancelled", signal.SIGTERM)
    assert tombstone.proof == "kernel"


def test_a_sentinel_that_does_not_answer_is_killed_and_the_task_sweeps(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """O12: a bounded wait. A member without a supervisor must not be left on the executor."""
    start(
        member,
        executor,
        enters=False,
        hand_over_timeout=0.1,
        **dict.fromkeys(("kill_timeout", "report_timeout", "term_timeout"), 0.1),
    )
    member.wait_heard("started")
    member.kill("sentinel", number=signal.SIGSTOP)
    (member.directory / ENTERED).touch()
    tombstone = member.result()
    assert tombstone.reason == "sentinel did not end in time and was killed"
    assert tombstone.proof == "sweep"
    assert not any(is_running(who) for who in member.tree())


# After it: the executor is.


def test_a_task_that_returned_and_ended_leaves_the_member_alone(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """An idle Python worker exits after a minute."""
    hand_over(member, executor)
    member.end_task()
    assert_untouched(member)
    end(member, executor)


def test_a_task_killed_after_the_hand_over_leaves_the_member_alone(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """Spark kills a worker whenever it likes: another task's cancel, for one."""
    hand_over(member, executor, grace=30.0)
    member.kill("task")
    wait_gone([member.processes["task"]])
    assert_untouched(member)
    member.kill("sentinel", number=signal.SIGTERM)  # what `end` does would take the grace
    member.kill("plain", "setsid", "member")  # the sentinel sees to who is left
    assert member.tombstone().proof == "kernel"


def test_a_daemon_killed_after_the_hand_over_leaves_the_member_alone(
    member: Member, executor: subprocess.Popen[bytes], daemon: subprocess.Popen[bytes]
) -> None:
    """Spark starts another one for its next task."""
    hand_over(member, executor, watch={"daemon": identity_of_child(daemon)})
    daemon.kill()
    daemon.wait()
    assert_untouched(member)
    end(member, executor)


def test_a_worker_that_is_used_again_has_neither_the_sentinel_nor_its_zombie(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """Its next task may wait for children of its own, and must get nobody else's."""
    hand_over(member, executor)
    sentinel = member.processes["sentinel"].pid
    assert psutil.Process(sentinel).ppid() != member.task.pid
    assert os.getsid(sentinel) == os.getpgid(sentinel) == sentinel
    assert member.use_task_again() == []
    assert_untouched(member)
    end(member, executor)
    assert member.use_task_again() == []
    member.end_task()


def test_a_task_that_has_handed_over_holds_no_end_of_any_pipe(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """An end kept in a reused worker would hide a death, or be one."""
    hand_over(member, executor)
    known = {name: pipes(who.pid) for name, who in member.processes.items()}
    theirs = known["sentinel"] | known["member"] | pipes(member.agent().pid)
    assert theirs, "D1, at least"
    assert not known["task"] & theirs
    end(member, executor)
    member.end_task()


def test_a_sentinel_killed_after_the_hand_over_leaves_the_group_to_the_kernel(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """PDEATHSIG for the member, D1 for its group; nobody but the agent is left to sweep."""
    hand_over(member, executor, payload={"children": ["plain"]}, grace=30.0)
    member.kill("sentinel")
    wait_gone([member.processes["member"], member.processes["plain"]])
    assert is_running(member.processes["task"])
    assert member.wait_heard("eof")


def test_the_agent_stops_a_member_that_was_handed_over(
    member: Member, executor: subprocess.Popen[bytes]
) -> None:
    """`stop()` reaches it as ever; the facts are on disk, and with the agent."""
    go = member.root / "go"
    agent = {"commands": [{"command": "stop", "grace": 0, "reason": "cancelled"}]}
    hand_over(member, executor, agent={**agent, "after": str(go)})
    member.end_task()
    go.touch()
    tombstone = member.tombstone()
    assert (tombstone.reason, tombstone.proof) == ("cancelled", "kernel")
    assert member.wait_heard("exited")["proof"] == "sweep"
    assert not any(is_running(who) for who in member.tree())
    assert not (member.directory / "local").exists()


def pipes(pid: int) -> set[str]:
    """The pipes that a process has open, apart from its standard streams."""
    names = [name for name in os.listdir(f"/proc/{pid}/fd") if int(name) > 2]
    found = {os.readlink(f"/proc/{pid}/fd/{name}") for name in names}
    return {target for target in found if target.startswith("pipe:")}
