"""A process whose main thread has ended while others run shows as a zombie, and is none."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.processes import identity_of, is_running, my_identity
from executor_agent.sweep import sweep
from executor_agent.traces import Trace, search

_EXIT = {"x86_64": 60, "aarch64": 93}.get(platform.machine())
PROGRAM = f"""
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall({_EXIT}, 0)  # ends this thread alone, as pthread_exit does
"""

pytestmark = pytest.mark.skipif(_EXIT is None, reason="no number of exit(2) for this machine")


@pytest.fixture
def headless() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "TFLEASE_MEMBER": f"headless-{os.getpid()}"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment) as process:
        status = Path(f"/proc/{process.pid}/status")
        while "State:\tZ" not in status.read_text():
            signal.sigtimedwait([], 0.005)
        yield process
        process.kill()


def test_it_is_found_and_ended(headless: subprocess.Popen[bytes]) -> None:
    """O5: else the sweep would prove that nothing is left."""
    identity = identity_of(headless.pid)
    assert identity is not None
    assert is_running(identity)
    trace = Trace(f"headless-{os.getpid()}", log="")
    assert [found.identity for found in search([trace])] == [identity]
    swept = sweep(trace, None, agent_timeout=0.0, kill_timeout=10.0)
    assert list(swept.killed) == [identity]
    assert not swept.left
    assert headless.wait(10) == -signal.SIGKILL
    assert not is_running(identity)


def test_a_sweep_that_is_late_from_the_start_still_kills(
    headless: subprocess.Popen[bytes],
) -> None:
    """On a starved machine the first search may take all of the time."""
    trace = Trace(f"headless-{os.getpid()}", log="")
    swept = sweep(trace, None, agent_timeout=0.0, kill_timeout=0.0)
    assert [each.pid for each in swept.killed] == [headless.pid]
    assert my_identity() not in swept.killed
