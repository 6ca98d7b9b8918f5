"""The kernel's early word to the sentinel of its task's death, with real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor_agent import parent_thread
from executor_agent.core.supervision import LIFELINE_CLOSED
from executor_agent.processes import is_running
from tests.integration.sentinel_helpers import ALL, DEADLINE, PROGRAMS, ROOT, Member

pytestmark = pytest.mark.slow


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


class ThreadedTask:
    """A process that starts a child by a parent thread; both tell of themselves on one pipe."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "threaded_task.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.child = int(self.says()["child"])

    def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], DEADLINE)[0], "nobody says anything"
        line = self.process.stdout.readline()
        assert line, "both have ended without a word"
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.read()  # until the child has ended, too
        self.process.stdout.close()


@pytest.fixture
def task() -> Iterator[ThreadedTask]:
    task = ThreadedTask()
    yield task
    task.close()


def test_a_child_with_neither_pidfd_nor_pipe_hears_of_its_killed_task(task: ThreadedTask) -> None:
    """O1: the word comes from the kernel, and survives exec."""
    task.process.kill()
    assert task.says() == {"heard": signal.SIGUSR1}


def test_a_task_that_is_only_stopped_and_goes_on_sends_no_word(task: ThreadedTask) -> None:
    """The thread ends after the child, so that its end always means the process's."""
    task.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, task.process.pid, os.WSTOPPED)
    task.process.send_signal(signal.SIGCONT)
    assert task.process.stdin is not None
    task.process.stdin.write(b"end the child\n")
    task.process.stdin.flush()
    assert task.says() == {"ended": 7}  # by its own exit; it had heard nothing
    assert task.says() == {"threads": 1}  # and nothing of ours is left in a worker used again


def test_the_word_alone_ends_the_member(member: Member) -> None:
    """O1: sent by hand here, with the task alive and its lifeline open."""
    member.start(payload={"children": list(ALL), "ignore": True})
    member.kill("sentinel", number=signal.SIGUSR1)
    tombstone = member.result()
    assert tombstone.reason == LIFELINE_CLOSED
    assert (tombstone.proof, tombstone.survivors) == ("kernel", ())
    assert not any(is_running(who) for who in member.tree())


def test_without_a_thread_to_be_had_the_child_is_started_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The early word is lost, the pidfd is not."""

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    child = parent_thread.started_by_a_thread(lambda: subprocess.Popen(["true"]))
    assert child.wait(DEADLINE) == 0


def test_what_cannot_be_started_is_said_on_the_callers_thread() -> None:
    def no_more() -> subprocess.Popen[bytes]:
        assert threading.current_thread() is not threading.main_thread()
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(BlockingIOError, match="temporarily"):
        parent_thread.started_by_a_thread(no_more)
    assert not [each for each in threading.enumerate() if each.name == "tflease-parent"]
