"""The scan of /proc that the kill matrix judges by: it sees what it has to, and can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import proc
from tests.spark.helpers import eventually, wait_for_file

HELPER = Path(__file__).parents[1] / "chaos" / "helper.py"


def start(folder: Path, role: str, tag: str) -> subprocess.Popen[bytes]:
    """A helper as the programs start it: here with an environment that is always empty."""
    command = [sys.executable, "-S", "-E", str(HELPER), tag, str(folder), role]
    return subprocess.Popen(command, env={})


@pytest.fixture
def tag(tmp_path: Path) -> Iterator[str]:
    """Whatever carries it is gone after the test."""
    tag = f"chaos-{tmp_path.name}-{os.getpid()}"
    yield tag
    for entry in proc.scan().values():
        if tag in entry.command:
            proc.send(entry.process, signal.SIGKILL)


@pytest.mark.parametrize(
    "role, file",
    [("plain", "plain"), ("double", "double"), ("leader", "leaderless"), ("hidden", "hidden")],
)
def test_a_helper_without_an_environment_is_found_by_its_tag_and_by_its_pid_file(
    tmp_path: Path, tag: str, role: str, file: str
) -> None:
    """O5, O6: an orphan, and one in a session of its own."""
    child = start(tmp_path, role, tag)
    wait_for_file(tmp_path / f"{file}.pid")
    pid, started = (tmp_path / f"{file}.pid").read_text().split()
    written = proc.Process(int(pid), int(started))
    found = {e.process for e in proc.scan().values() if e.lives and tag in e.command}
    assert written in found
    watch = proc.Watch([written])
    assert proc.send(written, signal.SIGKILL)
    assert watch.wait(10) == []
    watch.close()
    child.wait()
    assert not proc.is_alive(written)


def test_a_helper_ignores_what_can_be_ignored(tmp_path: Path, tag: str) -> None:
    child = start(tmp_path, "plain", tag)
    wait_for_file(tmp_path / "plain.pid")
    process = proc.find(child.pid)
    watch = proc.Watch([process])
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        proc.send(process, number)
    proc.send(process, signal.SIGSTOP)
    eventually(lambda: proc.state_of(process) == "T", "the helper to be stopped", 10)
    assert watch.wait(0) == [process]
    proc.send(process, signal.SIGKILL)
    assert watch.wait(10) == []
    assert list(watch.gone) == [process]
    watch.close()
    child.wait()


def test_a_zombie_does_not_live(tmp_path: Path, tag: str) -> None:
    child = start(tmp_path, "plain", tag)
    wait_for_file(tmp_path / "plain.pid")
    process = proc.find(child.pid)
    proc.send(process, signal.SIGKILL)
    eventually(lambda: proc.state_of(process) == "Z", "the helper to be a zombie", 10)
    assert not proc.scan()[child.pid].lives
    assert not proc.is_alive(process)
    child.wait()


def test_a_number_that_was_given_to_somebody_else_is_neither_watched_nor_signalled(
    tmp_path: Path, tag: str
) -> None:
    child = start(tmp_path, "plain", tag)
    wait_for_file(tmp_path / "plain.pid")
    process = proc.find(child.pid)
    earlier = proc.Process(process.pid, process.started - 1)
    assert not proc.send(earlier, signal.SIGKILL)
    watch = proc.Watch([earlier])
    assert watch.wait(0) == []
    watch.close()
    assert proc.is_alive(process)
    child.kill()
    child.wait()


def test_descendants_are_found_over_several_generations() -> None:
    def entry(pid: int, parent: int) -> proc.Entry:
        return proc.Entry(proc.Process(pid, 1), parent, "S", "", "")

    seen = {pid: entry(pid, parent) for pid, parent in [(10, 1), (11, 10), (12, 11), (20, 1)]}
    assert sorted(each.pid for each in proc.below(seen, 10)) == [11, 12]
    assert proc.below(seen, 20) == []
