"""Identities, descendants, the search by marker, the Spark chain: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from executor_agent import processes
from executor_agent.processes import (
    ProcessIdentity,
    descendants,
    identity_of,
    is_running,
    my_identity,
    name_of,
    open_pidfd,
    signal_if_same,
)

# Says its own pid and that of the child it forks, then waits for its stdin to end.
PARENT = """
import os, signal, sys
child = os.fork()
if child == 0:
    signal.pause()
print(os.getpid(), child, flush=True)
sys.stdin.read()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_its_pid_and_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity is not None
    assert identity == identity_of(sleeper.pid)
    assert identity != my_identity()
    assert is_running(identity)
    assert name_of(sleeper.pid) == "sleep"


def test_a_zombie_has_an_identity_but_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert identity_of(sleeper.pid) == identity
    assert not is_running(identity)
    sleeper.wait()
    assert identity_of(sleeper.pid) is None
    assert name_of(sleeper.pid) == "?"


def test_only_the_process_that_was_meant_is_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    """O7: the same number with another start is an innocent."""
    identity = identity_of(sleeper.pid)
    assert identity is not None
    impostor = ProcessIdentity(identity.pid, identity.create_time - 1)
    assert not signal_if_same(impostor, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        open_pidfd(impostor)
    assert sleeper.poll() is None
    assert signal_if_same(identity, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    assert not signal_if_same(identity, signal.SIGKILL), "already gone is no error"


def test_the_same_holds_where_the_kernel_refuses_pidfds(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gVisor and old seccomp profiles."""

    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    identity = identity_of(sleeper.pid)
    assert identity is not None
    assert open_pidfd(identity) is None
    impostor = ProcessIdentity(identity.pid, identity.create_time - 1)
    assert not signal_if_same(impostor, signal.SIGKILL)
    assert signal_if_same(identity, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL


def test_open_pidfds_do_not_pile_up(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity is not None
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        signal_if_same(identity, 0)
        signal_if_same(ProcessIdentity(identity.pid, 0.0), 0)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("searching", [False, True])
def test_descendants_are_found_at_any_depth_and_one_subtree_can_be_left_out(
    searching: bool, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways: the kernel's children files, and the search where it has none."""
    if searching:
        monkeypatch.setattr(processes, "children_of", processes._children_by_search)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        pids = {int(pid) for pid in parent.stdout.readline().split()}
        found = {identity.pid for identity in descendants(os.getpid())}
        assert pids | {sleeper.pid} <= found
        without = {identity.pid for identity in descendants(os.getpid(), without=parent.pid)}
        assert found - without == pids
        assert os.getpid() not in found
    finally:
        parent.communicate()


def test_who_has_no_descendants_or_does_not_exist_has_none(
    sleeper: subprocess.Popen[bytes],
) -> None:
    assert descendants(sleeper.pid) == []
    sleeper.kill()
    sleeper.wait()
    assert descendants(sleeper.pid) == []
