"""What `startup` makes of its samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import startup_result
from benchmarks.figure import Table
from benchmarks.startup_result import MOMENTS, Imports, Start

MOMENTS_AT = {name: number / 2 for number, name in enumerate(MOMENTS)}  # entered at 4.5 s
START = Start(MOMENTS_AT, cpu=6.0, worked=9.0, left=(), was_quiet=True)
IMPORTS = Imports(imported=3.0, gone=3.5, cpu=6.0, worked=6.5, was_quiet=True)


def table(result: startup_result.Result, title: str) -> Table:
    return next(each for each in result.tables if each.title.startswith(title))


@pytest.mark.parametrize("by_hand, verdict", [(3.0, "met (+1.50 s)"), (2.9, "MISSED (+1.60 s)")])
def test_the_bound_counts_from_when_both_imports_by_hand_are_gone(
    by_hand: float, verdict: str
) -> None:
    imports = [replace(IMPORTS, imported=1.0, gone=by_hand)]

    assert startup_result.result([START], [START], imports, "17").verdict.endswith(verdict)


def test_a_run_that_leaves_something_makes_the_measuring_unsound_warm_or_cold() -> None:
    untidy = replace(START, left=("77 python -m executor_agent.agent",))

    assert startup_result.result([START], [START], [IMPORTS], "17").is_sound
    for warm, cold in ((untidy, START), (START, untidy)):
        result = startup_result.result([warm], [cold], [IMPORTS], "17")
        assert not result.is_sound
        assert any("77 python" in note for note in result.notes)


def test_every_moment_has_a_row_with_the_step_from_the_one_before() -> None:
    rows = table(startup_result.result([START], [START], [IMPORTS], "17"), "Where").rows

    assert [row[0] for row in rows] == list(MOMENTS.values())
    assert rows[0][1:3] == ("0.00", "+0.00")
    assert all(row[2] == "+0.50" for row in rows[1:])


def test_a_moment_that_was_not_seen_every_time_is_left_out() -> None:
    unseen = {name: at for name, at in MOMENTS_AT.items() if name != "reserved"}
    warm = [START, replace(START, moments=unseen)]

    rows = table(startup_result.result(warm, [START], [IMPORTS], "17"), "Where").rows
    cells = dict(zip(MOMENTS, rows, strict=True))

    assert cells["reserved"][1:3] == ("", "")
    assert cells["ready"][1:3] == ("4.00", "")
    assert cells["reserved"][3:5] == ("3.50", "+0.50")
