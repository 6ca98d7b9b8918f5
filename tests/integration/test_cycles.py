"""A Spark worker that is used again: hundreds of members, one after the other, leave nothing
behind, neither in the worker nor on the machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor_agent import traces
from executor_agent.core.supervision import TOMBSTONE
from executor_agent.member_directory import HOME_VARIABLE
from tests.integration.sentinel_helpers import PROGRAMS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def cycle(tmp_path: Path, home: Path, count: int, *options: str) -> dict[str, Any]:
    """What the worker says after so many members."""
    folder = tmp_path / "cycles"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "cycling_task.py"), str(folder), str(count), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), HOME_VARIABLE: str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def everything_below(home: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(home):
        yield from (Path(folder, name) for name in names)


def assert_nothing_is_left(said: dict[str, Any], home: Path, count: int) -> None:
    assert said["wrong"] == []
    assert said["after"] == said["before"], "of descriptors, threads and children of the worker"
    assert [found for found in traces.marked() if found.marker.startswith(f"{said['run']}/")] == []
    files = list(everything_below(home))
    tombstones = [path for path in files if path.name == TOMBSTONE]
    assert len(tombstones) == count, "else nothing of the kind was tried"
    claims = [path for path in files if "claim" in str(path.relative_to(home))]
    assert claims == []
    assert [path for path in files if stat.S_ISSOCK(path.lstat().st_mode)] == []
    assert [path for path in files if path.name.startswith(".")] == [], "half-written"


CYCLES = int(os.environ.get("TFLEASE_CYCLES", "60"))
"""`make chaos` has 200 of them."""


def test_a_multitude_of_members_leaves_nothing_in_the_worker_that_had_them(
    tmp_path: Path, home: Path
) -> None:
    """O2, O14: half end by themselves, a quarter with their task, and of a quarter the sentinel is
    killed: before it has started anybody, while it does, and after that."""
    said = cycle(tmp_path, home, CYCLES)
    assert_nothing_is_left(said, home, CYCLES)


def test_twenty_members_that_were_handed_over_leave_nothing_either(
    tmp_path: Path, home: Path
) -> None:
    """O2, O14: anchor = executor. After the worker has let them go, one ends by itself, the next
    with its executor, one by a word to its sentinel, and of one the sentinel is killed; and again.
    """
    said = cycle(tmp_path, home, 20, "detached")
    assert_nothing_is_left(said, home, 20)
