"""Whether a task starts its member once more, and what an agent leaves behind for that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from executor_agent import marks
from executor_agent.core.succession import LastWords, has_successor
from executor_agent.marks import Marks

CAUSES = ("killed by signal", "peer lost", "GPU lost", "preempted", "completed")
KILLED = LastWords(had_slot=True, told="killed by signal", ports=(7077,))
TO_FOLLOW = LastWords(had_slot=True, is_to_follow=True, told="stopped")


def goes_on(
    words: LastWords,
    causes: tuple[str, ...] = CAUSES,
    *,
    is_proven_gone: bool = True,
    is_wanted: bool = True,
    has_assigned_gpus: bool = False,
) -> bool:
    return has_successor(
        words,
        causes,
        is_proven_gone=is_proven_gone,
        is_wanted=is_wanted,
        has_assigned_gpus=has_assigned_gpus,
    )


@pytest.mark.parametrize(
    "words, expected",
    [
        (KILLED, True),
        (replace(KILLED, told="peer lost"), True),
        (replace(KILLED, told="user exception"), False),
        # Whatever a policy says: there is nothing left to do, or no place to do it at.
        (replace(KILLED, told="completed"), False),
        (replace(KILLED, told="preempted"), False),
        # It was stopped for another attempt, however it took that.
        (TO_FOLLOW, True),
        (replace(TO_FOLLOW, told="completed"), True),
        (replace(TO_FOLLOW, told="user exception"), True),
        (replace(TO_FOLLOW, is_to_follow=False), False),
        # The coordinator does not know of the end: the row tells it.
        (replace(KILLED, told=""), False),
        (replace(TO_FOLLOW, told=""), False),
        # Each further one costs a slot.
        (replace(KILLED, had_slot=False), False),
        (replace(TO_FOLLOW, had_slot=False), False),
        (LastWords(), False),
    ],
)
def test_what_the_coordinator_knows_of_the_end_decides(words: LastWords, expected: bool) -> None:
    assert goes_on(words) is expected


@pytest.mark.parametrize("words", [KILLED, TO_FOLLOW])
def test_nothing_goes_on_that_is_not_asked_for_not_wanted_or_not_proven_gone(
    words: LastWords,
) -> None:
    assert not goes_on(words, ())
    assert not goes_on(words, is_wanted=False)
    assert not goes_on(words, is_proven_gone=False)


def test_a_lost_gpu_that_spark_has_assigned_is_left_and_any_other_is_chosen_anew() -> None:
    words = replace(KILLED, told="GPU lost")
    assert goes_on(words)
    assert not goes_on(words, has_assigned_gpus=True)
    assert goes_on(KILLED, has_assigned_gpus=True)


# -- marks -----------------------------------------------------------------------------------


async def test_what_the_agent_has_left_is_what_the_task_reads(tmp_path: Path) -> None:
    complaints: list[str] = []
    left = Marks(tmp_path, complaints.append)
    assert marks.read(tmp_path) == LastWords()
    left.ports((7077, 7078))
    left.reserved()
    left.to_follow()
    left.told("stopped")
    await left.written(20.0)
    assert marks.read(tmp_path) == LastWords(True, True, "stopped", (7077, 7078))
    assert complaints == []


async def test_a_mark_that_cannot_be_left_is_told_and_raises_nothing(tmp_path: Path) -> None:
    complaints: list[str] = []
    left = Marks(tmp_path / "gone", complaints.append)
    left.reserved()
    await left.written(20.0)
    [complaint] = complaints
    assert "cannot leave" in complaint
    assert marks.read(tmp_path / "gone") == LastWords()


async def test_nothing_to_write_is_not_waited_for(tmp_path: Path) -> None:
    async with asyncio.timeout(20.0):
        await Marks(tmp_path, print).written(1000.0)


@pytest.mark.parametrize("text", ["", "{", "null", '["x"]', "7", '{"a": 1}', "\udcff"])
def test_ports_that_make_no_sense_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_bytes(text.encode(errors="surrogateescape"))
    assert marks.read(tmp_path).ports == ()
