"""The check for leaked processes (tests/conftest.py) can fail, and lets through what may stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each runs a pytest of its own

CONFTEST = Path(__file__).parents[1] / "conftest.py"

IMPORTS = """
import os, subprocess, sys, pytest
"""


def run_tests(folder: Path, body: str, deadline: float = 0.2) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text(f"[pytest]\nleak_deadline = {deadline}\n")
    (folder / "test_it.py").write_text(IMPORTS + body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except OSError:
        return False


def test_a_child_left_running_fails_its_test_and_is_killed(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
def test_leaks():
    open("pid", "w").write(str(subprocess.Popen(["sleep", "60"]).pid))
""",
    )
    pid = int((tmp_path / "pid").read_text())
    assert done.returncode == 1
    assert f"pid {pid} " in done.stdout
    assert "sleep 60" in done.stdout
    assert not alive(pid)


def test_an_orphan_in_its_own_session_is_found(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
def test_leaks():
    code = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    subprocess.run([sys.executable, "-c", code], stdout=open("pid", "w"))
""",
    )
    pid = int((tmp_path / "pid").read_text())
    assert f"pid {pid} " in done.stdout
    assert not alive(pid)


def test_a_process_on_its_way_out_is_waited_for(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
def test_ends_a_moment_later():
    subprocess.Popen(["sleep", "0.05"])
""",
        deadline=30,
    )
    assert done.returncode == 0, done.stdout


def test_a_long_lived_tree_may_stay_but_no_member_of_a_run_in_it(tmp_path: Path) -> None:
    (tmp_path / "cluster.py").write_text(
        """
import os, subprocess, sys

children = []
for line in sys.stdin:  # "NAME=VALUE": starts a child with it
    name, _, value = line.strip().partition("=")
    children.append(subprocess.Popen(["sleep", "60"], env={**os.environ, name: value}))
    print("started", flush=True)
for child in children:
    child.kill()
    child.wait()
"""
    )
    done = run_tests(
        tmp_path,
        """
@pytest.fixture(scope="session")
def cluster(long_lived):
    tree = subprocess.Popen(
        [sys.executable, "cluster.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    long_lived.allow_tree(tree.pid)

    def grow(line):
        print(line, file=tree.stdin, flush=True)
        tree.stdout.readline()

    yield grow
    tree.communicate()

def test_starts_an_executor(cluster):
    cluster("NAME=1")

def test_leaves_a_member(cluster):
    cluster("TFLEASE_MEMBER=run-1/worker:0")
""",
    )
    assert "2 passed, 1 error" in done.stdout
    assert "ERROR at teardown of test_leaves_a_member" in done.stdout


def test_another_sessions_processes_are_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, "TFLEASE_MEMBER": "other", "TFLEASE_TEST_SESSION": "x"}
    )
    try:
        done = run_tests(tmp_path, "def test_nothing(): pass\n")
        assert done.returncode == 0, done.stdout
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
