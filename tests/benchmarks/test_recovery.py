"""What `recovery` and `random-kills` make of their samples, and how kills are spread."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks import random_kills, recovery_result
from benchmarks.random_kills import Trained, plan
from benchmarks.recovery_member import stamp
from benchmarks.recovery_result import BEYOND, Detection, account
from benchmarks.recovery_watch import Pictures, Recovery, stamps
from benchmarks.startup_result import Imports
from coordinator.core.model import (
    Cause,
    Failure,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunPhase,
    RunSpec,
    RunView,
)

RECOVERY = Recovery(known=0.1, decided=0.3, forked=0.6, ready=7.0, entered=7.1, told=300, found=200)
IMPORTS = Imports(imported=4.0, gone=5.0, cpu=8.0, worked=8.0, was_quiet=True)
DETECTIONS = [
    Detection("process exit", 0.05, 0.0, True),
    Detection("agent silent", 14.0, 15.0, True),
    Detection("stall", 5.2, 5.0, True, "worker:0 is stuck"),
]
UNDISTURBED = Trained(steps=10_500, seconds=60.0, accuracy=0.98)
DISTURBED = Trained(10_500, 200.0, 0.975, (RECOVERY,) * 20)


def told(
    recovery: Recovery = RECOVERY,
    detections: list[Detection] | None = None,
    left: tuple[str, ...] = (),
) -> recovery_result.Result:
    return recovery_result.result(
        [recovery], [IMPORTS], detections or DETECTIONS, left, stall=5.0, java="17"
    )


@pytest.mark.parametrize("entered, verdict", [(8.0, "met (+3.00 s)"), (8.1, "MISSED (+3.10 s)")])
def test_a_restart_is_held_against_the_imports_by_hand(entered: float, verdict: str) -> None:
    assert verdict in told(replace(RECOVERY, entered=entered)).verdict


@pytest.mark.parametrize(
    "flaw, verdict",
    [
        (Detection("process exit", 0.3, 0.0, True), "within 200 ms: MISSED (worst 0.30 s)"),
        (Detection("agent silent", 16.5, 15.0, True), "within 16 s: MISSED (worst 16.50 s)"),
        (Detection("stall", 11.0, 5.0, True, "worker:0"), "within 10 s: MISSED (worst 11.00 s)"),
    ],
)
def test_what_is_noticed_too_late_is_missed(flaw: Detection, verdict: str) -> None:
    assert told().verdict.count(": met") == 1 + len(BEYOND)

    assert verdict in told(detections=[*DETECTIONS, flaw]).verdict


def test_leftovers_and_a_stall_that_blames_nobody_make_the_measuring_unsound() -> None:
    nobody = replace(DETECTIONS[2], told="something is stuck")

    assert told().is_sound
    for unsound in (told(left=("77 python",)), told(detections=[*DETECTIONS[:2], nobody])):
        assert not unsound.is_sound
    assert any("77 python" in note for note in told(left=("77 python",)).notes)


def test_the_account_of_a_restart_adds_up() -> None:
    rows = account([RECOVERY]).rows

    assert [row[2] for row in rows] == ["0.10", "0.20", "0.30", "6.40", "0.10"]
    assert rows[-1][1] == "7.10"


def test_a_moment_that_no_picture_had_is_left_out_of_its_step_and_the_next() -> None:
    rows = account([RECOVERY, replace(RECOVERY, known=math.inf, decided=0.9)]).rows

    assert [row[4] for row in rows] == ["1", "1", "2", "2", "2"]
    assert rows[1][2] == "0.20"


def test_kills_are_spread_over_the_training_and_none_is_in_its_last_part() -> None:
    planned = plan(kills=20, steps=10_500)

    assert [when // 500 for when, _ in planned] == list(range(20))
    assert {victim for _, victim in planned} == {0, 1}
    assert planned == plan(kills=20, steps=10_500)


@pytest.mark.parametrize(
    "flaw, verdict",
    [
        (
            {},
            "finished after 20 of 20 kills; accuracy 0.9750, undisturbed 0.9800: within 0.015: met",
        ),
        ({"accuracy": 0.9}, "within 0.015: MISSED"),
        ({"recoveries": (RECOVERY,)}, "NOT FINISHED after 1 of 20 kills"),
        ({"steps": 10_000}, "NOT FINISHED after 20 of 20 kills"),
    ],
)
def test_a_training_with_kills_has_to_be_whole_and_as_good(
    flaw: dict[str, object], verdict: str
) -> None:
    result = random_kills.result([UNDISTURBED], replace(DISTURBED, **flaw), 20, "17")

    assert verdict in result.verdict
    assert result.is_sound == verdict.startswith(("finished", "within"))


def test_steps_that_were_done_again_are_counted_from_the_checkpoint_that_was_found() -> None:
    ahead = replace(RECOVERY, told=100, found=200)  # its last word had not come yet

    assert replace(DISTURBED, recoveries=(RECOVERY, ahead)).again == 100


@dataclass
class FakeContext:
    generation: int = 3
    task_index: int = 1
    checkpoint: str | None = None

    def latest_checkpoint(self) -> str | None:
        return self.checkpoint


def test_a_member_says_when_it_entered_and_which_checkpoint_it_found(tmp_path: Path) -> None:
    stamp(tmp_path, FakeContext(checkpoint="/model/ckpt-400"))
    stamp(tmp_path, FakeContext(task_index=0))

    first, second = stamps(tmp_path, generation=3, members=2)
    assert (first["step"], second["step"]) == (0, 400)
    assert json.loads((tmp_path / "3-1").read_text()) == second


def picture(phase: MemberPhase, at: float, failure: Failure | None = None) -> RunView:
    member = MemberView(MemberId(Role.WORKER, 0), phase, at)
    return RunView(
        "run", RunSpec(Roles(worker=1)), RunPhase.RUNNING, 1, (member,), 0.0, 1, failure=failure
    )


def test_pictures_tell_when_a_phase_began_after_the_kill() -> None:
    pictures = Pictures()
    for phase, at in ((MemberPhase.RUNNING, 1.0), (MemberPhase.EXITED, 5.0)):
        pictures(picture(phase, at))

    assert pictures.first(("exited",), after=2.0) == 5.0
    assert pictures.first(("running",), after=2.0) == math.inf
    assert pictures.failed_at == math.inf


def test_pictures_keep_the_time_of_the_first_failure_that_they_show() -> None:
    pictures = Pictures()
    failed = picture(MemberPhase.EXITED, 5.0, Failure(Cause.STALLED, "worker:0 is stuck"))
    pictures(failed)
    seen_at = pictures.failed_at
    pictures(failed)

    assert math.isfinite(seen_at)
    assert pictures.failed_at == seen_at
