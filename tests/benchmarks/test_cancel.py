"""What `cancel` makes of its samples, and how it waits for processes to go."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import cancel
from benchmarks.cancel import MEMBERS, SPARK, STOP, SUPERVISION, TAG, WORKER, Sample
from benchmarks.stopwatch import Process


def samples() -> list[Sample]:
    ours = {MEMBERS: 0.25, SUPERVISION: 0.5}
    return [
        Sample(STOP, 0.01, ours, (), True),
        Sample(TAG, 0.02, ours, (), True),
        Sample(SPARK, 0.02, {WORKER: 3.0}, (), True),
    ]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "600"])
    yield child
    child.kill()
    child.wait()


def test_the_last_of_all_counts_and_both_of_ours_are_judged() -> None:
    slow = replace(samples()[1], gone={MEMBERS: 0.25, SUPERVISION: 2.5})

    verdict = cancel.result([*samples(), slow], "17").verdict

    assert "cluster.stop(): all gone within 1 s: met (worst 0.50 s; Spark's own" in verdict
    assert "takes 6.0 times" in verdict
    assert "cancelJobsWithTag(), a run: all gone within 1 s: MISSED (worst 2.50 s" in verdict


def test_what_is_left_makes_the_measuring_unsound_and_is_named() -> None:
    [stop, *others] = samples()
    assert cancel.result(samples(), "17").is_sound

    result = cancel.result([replace(stop, left=("77 sleep",)), *others], "17")

    assert not result.is_sound
    assert "LEFT BEHIND: cluster.stop(): 77 sleep" in result.notes


def test_a_process_is_gone_after_the_call_that_ends_it(child: subprocess.Popen[bytes]) -> None:
    process = Process.now(child.pid)

    returned, gone = cancel.seconds_until_gone(child.kill, [process], 30.0)

    assert set(gone) == {process}
    assert returned >= 0


def test_a_process_that_stays_is_missing_and_counts_as_left(
    child: subprocess.Popen[bytes],
) -> None:
    process = Process.now(child.pid)

    returned, gone = cancel.seconds_until_gone(lambda: None, [process], 0.01)
    sample = cancel._sample(SPARK, returned, {process: WORKER}, gone, [], True)

    assert gone == {}
    assert sample.all_gone == math.inf
    assert sample.left == (f"{child.pid} sleep 600",)


def test_who_is_gone_before_the_call_is_an_error(child: subprocess.Popen[bytes]) -> None:
    other = replace(Process.now(child.pid), started=1)

    with pytest.raises(ProcessLookupError):
        cancel.seconds_until_gone(child.kill, [other], 30.0)
    assert child.poll() is None
