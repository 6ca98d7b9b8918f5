"""What `crash` makes of its samples, and what it accepts as an exception that tells the story."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crash
from benchmarks.crash import ALONE, CASES, LATE_CULPRIT, NO_CULPRIT, Case, Sample
from benchmarks.crash_member import MESSAGE, PEER, RAISE, die
from coordinator.core.model import Cause, Failure, MemberId, Role

STORY = f"Traceback (most recent call last):\n  ... in die\nRuntimeError: {MESSAGE}"


def sample(case: Case, raised: float = 0.1) -> Sample:
    return Sample(case, 0.05, raised, raised, 15.0, "", (), True)


def blaming(index: int, cause: Cause) -> Failure:
    return Failure(cause, "it failed", MemberId(Role.WORKER, index))


def test_the_worst_of_the_only_member_is_held_against_its_bound() -> None:
    samples = [*map(sample, CASES), sample(ALONE[1], raised=1.2)]

    verdict = crash.result(samples, "17").verdict

    assert "the only member: under 1 s: MISSED (worst 1.20 s)" in verdict
    assert "one of 2: within the verdict's wait of 15 s: met (worst 0.10 s)" in verdict


@pytest.mark.parametrize(
    "flaw, told",
    [({"left": ("77 sleep",)}, "77 sleep"), ({"wrong": "nobody is blamed"}, "nobody is blamed")],
)
def test_leftovers_and_wrong_exceptions_make_the_measuring_unsound_and_are_named(
    flaw: dict[str, Any], told: str
) -> None:
    samples = [sample(case) for case in CASES]
    assert crash.result(samples, "17").is_sound

    result = crash.result([replace(samples[0], **flaw), *samples[1:]], "17")

    assert not result.is_sound
    assert any(told in note for note in result.notes)


@pytest.mark.parametrize(
    "case, failure, text",
    [
        (ALONE[0], blaming(0, Cause.USER_EXCEPTION), STORY),
        (ALONE[1], blaming(0, Cause.KILLED_BY_SIGNAL), "was killed by signal 9"),
        (LATE_CULPRIT, blaming(1, Cause.USER_EXCEPTION), STORY),
        (NO_CULPRIT, blaming(0, Cause.PEER_LOST), STORY),
    ],
)
def test_an_exception_that_names_the_culprit_and_tells_how_it_died_is_accepted(
    case: Case, failure: Failure, text: str
) -> None:
    assert crash.misses(case, failure, text) == ""


@pytest.mark.parametrize(
    "case, failure, text, complaint",
    [
        (ALONE[0], None, STORY, "no member is blamed"),
        (LATE_CULPRIT, blaming(0, Cause.PEER_LOST), STORY, "worker:0 is blamed"),
        (ALONE[1], blaming(0, Cause.USER_EXCEPTION), STORY, "the cause is 'user exception'"),
        (ALONE[0], blaming(0, Cause.USER_EXCEPTION), MESSAGE, "lacks ['Traceback', 'in die']"),
        (ALONE[1], blaming(0, Cause.KILLED_BY_SIGNAL), "was killed", "lacks ['signal 9']"),
    ],
)
def test_an_exception_that_misleads_is_a_finding(
    case: Case, failure: Failure | None, text: str, complaint: str
) -> None:
    assert complaint in crash.misses(case, failure, text)


@pytest.mark.parametrize("part, raised", [(RAISE, RuntimeError), (PEER, ConnectionResetError)])
def test_a_member_writes_down_when_it_dies_before_it_does(
    tmp_path: Path, part: str, raised: type[Exception]
) -> None:
    stamp = tmp_path / "0"

    with pytest.raises(raised, match=MESSAGE):
        die(part, stamp)

    assert float(stamp.read_text()) > 0
