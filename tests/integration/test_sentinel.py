"""The sentinel with real processes: whatever happens to whom, nothing of the member is left."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.core.claim import Claim
from executor_agent.core.supervision import LIFELINE_CLOSED, MEMBER_EXITED
from executor_agent.processes import identity_of, is_running, signal_if_same
from tests.integration.sentinel_helpers import (
    ALL,
    ROOT,
    TASK_GONE,
    Member,
    eventually,
    identity_of_child,
    start_stand_in,
    wait_gone,
)

pytestmark = pytest.mark.slow

NASTY = {"children": list(ALL), "ignore": True}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


@pytest.fixture
def stand_in() -> Iterator[subprocess.Popen[bytes]]:
    process = start_stand_in()
    yield process
    process.kill()
    process.wait()


def test_a_killed_task_takes_every_descendant_with_it(member: Member) -> None:
    """O1, O4, O5: setsid, double fork and ignored signals save nobody."""
    member.start(payload=NASTY)
    member.kill("task")
    wait_gone(member.tree())
    tombstone = member.tombstone()
    assert tombstone.reason in TASK_GONE
    assert (tombstone.signal, tombstone.killed_by_us) == (signal.SIGKILL, True)
    assert (tombstone.proof, tombstone.survivors) == ("kernel", ())
    assert member.marked() == []


@pytest.mark.parametrize("anchor", ["daemon", "executor"])
def test_a_killed_daemon_or_executor_ends_the_member(
    member: Member, stand_in: subprocess.Popen[bytes], anchor: str
) -> None:
    """O3: Spark itself would let everything live on, the task included."""
    member.start(payload=NASTY, watch={anchor: identity_of_child(stand_in)})
    stand_in.kill()
    wait_gone(member.tree())
    assert member.tombstone().reason == f"{anchor} died"
    assert member.result() == member.tombstone()


def test_an_anchor_that_is_gone_before_the_start_starts_nobody(
    member: Member, stand_in: subprocess.Popen[bytes]
) -> None:
    """O3, the race: the daemon dies between being looked up and being watched."""
    daemon = identity_of_child(stand_in)
    stand_in.kill()
    stand_in.wait()
    member.start(watch={"daemon": daemon}, ready=False)
    tombstone = member.result()
    assert (tombstone.reason, tombstone.pid) == ("daemon died", None)
    assert tombstone.proof == "kernel"
    assert not (member.pids / "member").exists()


def test_descendants_die_when_the_leader_leaves_first(member: Member) -> None:
    """O6: a leader's normal exit must not save its stubborn children."""
    member.start(payload={**NASTY, "exit": 0})
    wait_gone(member.tree())
    tombstone = member.result()
    assert (tombstone.reason, tombstone.exit_code) == (MEMBER_EXITED, 0)
    assert not tombstone.killed_by_us
    assert tombstone.proof == "kernel"


def test_innocents_are_not_touched(member: Member, stand_in: subprocess.Popen[bytes]) -> None:
    """O7: neither strangers nor the task's other children are ours, whatever they look like."""
    path = member.root / "bystander"
    command = ["sh", "-c", f"echo $$ > {path}.part; mv {path}.part {path}; exec sleep 600"]
    marked_otherwise = {**os.environ, "TFLEASE_MEMBER": member.marker + "0"}
    lookalike = subprocess.Popen(["sleep", "600"], env=marked_otherwise)
    bystander = None
    try:
        member.start(payload=NASTY, bystander=command)
        eventually(path.exists, "the bystander")
        bystander = identity_of(int(path.read_text()))
        member.kill("task")
        member.tombstone()
        assert stand_in.poll() is None
        assert lookalike.poll() is None
        assert bystander is not None
        assert is_running(bystander)
    finally:
        lookalike.kill()
        lookalike.wait()
        if bystander is not None:
            signal_if_same(bystander, signal.SIGKILL)


def test_a_task_that_returns_stops_the_member(member: Member) -> None:
    """O2: a Python worker is reused, so its end is nothing to wait for."""
    member.start(payload=NASTY, grace=0.3)
    member.let_return()
    tombstone = member.result()
    assert not any(is_running(who) for who in member.tree())
    assert tombstone.reason == LIFELINE_CLOSED
    assert tombstone.proof == "kernel"
    # Nothing obeyed: the grace, then the time that SIGTERM has.
    assert tombstone.stop_seconds >= 1.3
    assert (tombstone.signal, tombstone.killed_by_us) == (signal.SIGKILL, True)


def test_sigterm_to_the_sentinel_stops_the_member_and_sighup_does_not(member: Member) -> None:
    """O4: Spark sends SIGHUP through the daemon; it must not be what ends the one who cleans up."""
    member.start(payload=NASTY)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        member.kill("sentinel", number=number)
    member.kill("sentinel", number=signal.SIGTERM)
    tombstone = member.result()
    assert tombstone.reason == "sentinel was told to terminate"
    assert tombstone.proof == "kernel"


def test_the_grace_is_honoured_and_the_member_is_told(member: Member) -> None:
    """The stop line has reason and grace; who leaves in time leaves with its own exit code."""
    record = member.root / "stop"
    member.start(payload={"on_stop": {"record": str(record), "exit": 7}}, grace=30.0)
    member.kill("task")
    tombstone = member.tombstone()
    line = json.loads(record.read_text())
    assert line["grace"] == 30.0
    assert line["reason"] in TASK_GONE
    assert (tombstone.exit_code, tombstone.signal) == (7, None)
    assert not tombstone.killed_by_us
    assert tombstone.stop_seconds < 10


def test_after_the_grace_sigterm_comes_first(member: Member) -> None:
    """A member with the default action dies of it; SIGKILL is for who ignores it."""
    record = member.root / "stop"
    member.start(payload={"on_stop": {"record": str(record)}}, grace=0.2)
    member.let_return()
    tombstone = member.result()
    assert record.exists()
    assert (tombstone.signal, tombstone.killed_by_us) == (signal.SIGTERM, True)


def test_the_agent_can_stop_the_member_and_only_ever_shorten_the_grace(member: Member) -> None:
    commands = [
        {"command": "stop", "grace": 60, "reason": "peer lost"},
        {"command": "nonsense"},
        {"command": "stop", "grace": 600, "reason": "longer"},
        {"command": "stop", "grace": 0, "reason": "fenced"},
    ]
    ready = str(member.pids / "member")
    member.start(payload=NASTY, agent={"commands": commands, "after": ready}, ready=False)
    tombstone = member.result()
    assert tombstone.reason == "peer lost"
    assert tombstone.stop_seconds < 10
    stopping = member.wait_heard("stopping")
    assert (stopping["reason"], stopping["grace"]) == ("peer lost", 60)


@pytest.mark.parametrize(
    "agent, reason",
    [({"exit": 3}, "agent exited with code 3"), ({}, "agent was killed by signal 9")],
)
def test_an_agent_that_dies_ends_the_member(
    member: Member, agent: dict[str, object], reason: str
) -> None:
    """Nobody would renew, report or fence any more."""
    ready = {"after": str(member.pids / "member")} if agent else {}  # it comes last
    member.start(payload=NASTY, agent={**agent, **ready})
    if not agent:
        signal_if_same(member.agent(), signal.SIGKILL)
    tombstone = member.result()
    assert tombstone.reason == reason
    assert tombstone.proof == "kernel"
    assert not any(is_running(who) for who in member.tree())


@pytest.mark.parametrize(
    "end, exit_code, number",
    [({"exit": 0}, 0, None), ({"exit": 3}, 3, None), ({"signal": 11}, None, 11)],
)
def test_the_members_own_end_is_reported(
    member: Member, end: dict[str, int], exit_code: int | None, number: int | None
) -> None:
    """E1: exit code and signal, in the tombstone and to the agent."""
    member.start(payload=end)
    tombstone = member.result()
    assert (tombstone.exit_code, tombstone.signal) == (exit_code, number)
    assert tombstone.reason == MEMBER_EXITED
    assert not tombstone.killed_by_us
    assert tombstone.max_rss_bytes > 1_000_000
    heard = member.wait_heard("exited")
    assert (heard["exit_code"], heard["signal"]) == (exit_code, number)
    assert (heard["proof"], heard["pid"]) == ("sweep", tombstone.pid)
    assert [each["event"] for each in member.heard()] == ["started", "stopping", "exited"]


def test_a_member_that_cannot_be_started_says_so(member: Member) -> None:
    """E1: 127 and the cause in the log, not silence."""
    member.start(member_argv=["/does/not/exist"], ready=False)
    assert member.result().exit_code == 127
    assert "FileNotFoundError" in (member.directory / "member.log").read_text()


def test_an_agent_that_never_reports_is_not_waited_for_longer_than_its_time(
    member: Member,
) -> None:
    """O12's little sister: a bounded wait, then the agent goes, too."""
    member.start(payload={"exit": 0}, agent={"done": False, "stay": True}, report_timeout=0.3)
    assert member.result().proof == "kernel"
    assert member.marked() == []


def test_the_tombstone_and_the_log_are_private_and_the_scratch_is_gone(member: Member) -> None:
    """What a member leaves on the executor: three files for our user, no scratch."""
    local = member.directory / "local"
    (local / "deep").mkdir(parents=True)
    (local / "deep" / "shard").write_text("x")
    member.start(payload={"exit": 0})
    tombstone = member.result()
    assert tombstone == member.tombstone()
    assert (tombstone.member, tombstone.run_id, tombstone.incarnation) == ("worker:1", "run", "1")
    assert not local.exists()
    left = ["member.log", "supervision.log", "tombstone.json"]
    assert sorted(os.listdir(member.directory)) == left
    for name in os.listdir(member.directory):
        assert stat.S_IMODE((member.directory / name).stat().st_mode) == 0o600
    _, *log = (member.directory / "member.log").read_text().splitlines()
    assert log == ["the member is up"]


def test_the_claim_names_who_was_started(member: Member) -> None:
    """O14: the next agent on the host finds leftovers by it."""
    member.start()
    member.wait_heard("started")
    claim = Claim.from_json(member.claim.read_bytes())
    assert claim.marker == member.marker
    for name in ("sentinel", "member"):
        who = member.processes[name]
        assert claim.processes[name] == (who.pid, who.create_time)
    agent = member.agent()
    assert claim.processes["agent"] == (agent.pid, agent.create_time)
    started = member.wait_heard("started")
    assert (started["pid"], started["create_time"]) == claim.processes["member"]


def test_no_end_of_a_pipe_leaks_where_it_would_hold_a_dead_mans_switch(member: Member) -> None:
    """One leaked writing end and the kernel would never fire: /proc/PID/fd tells."""
    member.start(payload=NASTY)
    # The agent comes up beside the member, and a Python that starts opens files.
    member.wait_heard("started")
    agent = member.agent()
    eventually(lambda: descriptors(agent.pid) == set(range(6)), "the agent's six descriptors")
    writers = {
        name: writable_pipes(who.pid) for name, who in {**member.processes, "agent": agent}.items()
    }
    stdio = {os.readlink(f"/proc/{member.task.pid}/fd/{fd}") for fd in (1, 2)}
    ours = writers["task"] - stdio
    assert len(ours) == 3, "lifeline, D1, D2"
    assert len(writers["sentinel"] & ours) == 1, "D1 alone"
    for name in ("member", "agent", *ALL):
        assert not writers[name] & ours, f"{name} holds a writing end"
    assert descriptors(member.processes["member"].pid) == set(range(8))


def test_the_member_is_arranged_as_promised(member: Member) -> None:
    """Own session, own group, first in line for the out-of-memory killer, nothing ignored."""
    member.start()
    pid = member.processes["member"].pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    points = [
        int(Path(f"/proc/{each}/oom_score_adj").read_text())
        for each in (pid, member.processes["sentinel"].pid)
    ]
    assert points[0] == min(1000, points[1] + 500)
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    assert ignored & (1 << signal.SIGHUP - 1 | 1 << signal.SIGTERM - 1) == 0


@pytest.mark.parametrize("text", ["not JSON", "{}", '{"member": 1}', "[]"])
def test_a_broken_configuration_is_refused_with_a_message(text: str) -> None:
    fd = os.memfd_create("config")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    done = subprocess.run(
        [sys.executable, "-m", "executor_agent.sentinel", "--config-fd", str(fd)],
        pass_fds=[fd],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(fd)
    assert done.returncode == 2
    assert "tflease sentinel: broken configuration" in done.stderr


def writable_pipes(pid: int) -> set[str]:
    found = set()
    for fd in descriptors(pid):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
        except FileNotFoundError:
            continue  # closed since it was listed: the sentinel reads files now and then
        if target.startswith("pipe:") and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
            found.add(target)
    return found


def descriptors(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def test_a_task_that_spark_has_dropped_without_killing_it_stops_its_member(
    member: Member, tmp_path: Path
) -> None:
    """O1: Spark kills the Python worker of a task only if the JVM's side still runs."""
    hung_up = tmp_path / "hung-up"
    member.start(payload=NASTY, hung_up=str(hung_up))
    assert all(is_running(who) for who in member.tree())
    hung_up.touch()
    tombstone = member.result()
    assert not any(is_running(who) for who in member.tree())
    assert tombstone.reason == "task let go of its lifeline"
    assert tombstone.proof == "kernel"
