"""What `kill-others` makes of its samples, and what its stand-ins launch."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import kill_others, kill_stand_ins, plain_task
from benchmarks.kill_others import OURS, WAYS, Sample
from benchmarks.kill_stand_ins import CHILD, PROCESSES, TOKEN, WATCHER
from benchmarks.stopwatch import Process

ALL_GONE = dict.fromkeys(PROCESSES, 10.0)


def samples(ours: Sample | None = None) -> list[Sample]:
    """Below us all go; the watcher ends the member; below the others all stay."""
    gone = {OURS: ALL_GONE, WATCHER: {PROCESSES[0]: 300.0}}
    found = [Sample(way, 9.0, gone.get(way, {}), (), True) for way in WAYS]
    return found if ours is None else [*found, ours]


def test_survivors_are_counted_and_named_for_each_way() -> None:
    result = kill_others.result(samples(), "17")
    rows = {row[0]: row[1:] for row in result.tables[0].rows}

    assert rows[OURS] == ("0 of 4 survive", "nobody", "10.0", "10.0", "1.0", "1")
    assert rows[WATCHER][0] == "3 of 4 survive"
    assert rows[WATCHER][2:5] == ("300.0", "300.0", "30.0")
    assert rows[CHILD] == ("4 of 4 survive", ", ".join(PROCESSES), "-", "-", "-", "1")
    assert "below tflease: met (0 of 4 survive" in result.verdict
    assert result.is_sound


def test_a_survivor_below_us_misses_the_promise() -> None:
    ours = Sample(OURS, 9.0, {PROCESSES[0]: 10.0}, (), True)

    assert "MISSED (3 of 8 survive" in kill_others.result(samples(ours), "17").verdict


def test_what_the_benchmark_could_not_end_makes_it_unsound_and_is_named() -> None:
    ours = replace(samples()[-1], left=("77 sleep 600",))

    result = kill_others.result(samples(ours), "17")

    assert not result.is_sound
    assert any("77 sleep 600" in note for note in result.notes)


def test_every_way_has_every_turn_equally_often() -> None:
    turns = Counter(
        (turn, way) for repeat in range(8) for turn, way in enumerate(kill_others._in_turn(repeat))
    )

    assert set(turns.values()) == {2}
    assert len(turns) == len(WAYS) ** 2


@pytest.fixture
def token() -> Iterator[str]:
    token = f"test-{os.getpid()}"
    yield token
    kill_others.end(kill_others.carrying(token))
    assert kill_others.carrying(token) == []


@pytest.mark.slow
def test_the_watcher_ends_its_member_and_not_the_helpers(tmp_path: Path, token: str) -> None:
    facts = tmp_path / "facts.json"
    program = [sys.executable, kill_stand_ins.__file__, "watcher", str(facts)]
    starter = (
        "import subprocess, sys; subprocess.Popen(sys.argv[1:]); sys.stdin.read()"  # until killed
    )
    task = subprocess.Popen(
        [sys.executable, "-c", starter, *program],
        stdin=subprocess.PIPE,
        env={**os.environ, TOKEN: token},
    )
    try:
        launched = plain_task.launched(facts)
        member = os.pidfd_open(launched[PROCESSES[0]].pid)
    finally:
        task.send_signal(signal.SIGKILL)
        task.communicate()

    try:
        assert select.select([member], [], [], 30.0)[0]
    finally:
        os.close(member)
    assert set(launched.values()) & set(kill_others.carrying(token)) == {
        launched[name] for name in PROCESSES[1:]
    }


def test_only_exactly_the_named_processes_are_ended() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        process = Process.now(child.pid)
        kill_others.end([replace(process, started=process.started + 1)])
        assert child.poll() is None

        kill_others.end([process])
        assert child.wait(30.0) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_a_launch_that_nobody_is_left_to_make_is_an_error_at_once(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"

    with pytest.raises(TimeoutError, match=r"facts\.json was not written"):
        plain_task.launched(facts, is_alive=lambda: False)


def test_launched_processes_are_told_apart_by_name(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({PROCESSES[0]: os.getpid()}))

    assert plain_task.launched(facts) == {PROCESSES[0]: Process.now(os.getpid())}
