"""What a run leaves behind is found by the marker of its members, and nobody else's is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import run_processes, stopwatch
from benchmarks.stopwatch import Process

RUN = f"bench{os.getpid()}"


@pytest.fixture
def survivor() -> Iterator[Process]:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TFLEASE_MEMBER": f"{RUN}/worker:0/1-ab"},
    )
    assert child.stdout is not None
    child.stdout.readline()  # it is exec'ed: before that it shows our environment
    yield Process.now(child.pid)
    child.kill()
    child.communicate()


def test_a_process_with_the_runs_marker_counts_as_left_behind(survivor: Process) -> None:
    [line] = run_processes.left_behind(RUN)

    assert line.startswith(f"{survivor.pid} {sys.executable}")


def test_a_process_of_a_run_whose_name_only_begins_alike_is_not_blamed(survivor: Process) -> None:
    assert run_processes.left_behind(RUN[:-1]) == ()


@pytest.mark.parametrize(
    "marker, found",
    [
        (f"{RUN}/worker:0/1-ab", True),
        (f"{RUN}/worker:0/", True),
        (f"{RUN}/", True),
        (f"{RUN}/worker:0/1-a", False),
        (f"{RUN}/worker:0", False),
        (RUN, False),
    ],
)
def test_a_marker_stands_for_others_only_when_it_ends_in_a_slash(
    survivor: Process, marker: str, found: bool
) -> None:
    assert (survivor in stopwatch.marked(marker)) is found


def test_the_one_that_is_spared_is_not_found(survivor: Process) -> None:
    assert stopwatch.marked(f"{RUN}/", without=survivor.pid) == []
