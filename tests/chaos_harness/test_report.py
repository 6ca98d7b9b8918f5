"""What the kill matrix says of its rows, and when it calls a row sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos import report
from tests.chaos.matrix import RowResult
from tests.chaos.row import Row
from tests.chaos.rows import ROWS
from tests.chaos.stage import STANDALONE
from tests.chaos.trial import Outcome

ROW = Row("a-row", "somebody: SIGKILL | and more", lambda scene: None)
GONE = Outcome(gone=12.0, closed_by="supervision", noticed="task died")
LEFT = Outcome(survivors=["worker-0's helper (hidden) (state S)"], closed_by="nobody")


def result(row: Row, *outcomes: Outcome) -> RowResult:
    return RowResult(row, list(outcomes))


def test_a_row_without_survivors_is_sound_and_shows_median_and_worst() -> None:
    found = result(ROW, GONE, replace(GONE, gone=20.0), replace(GONE, gone=14.0))
    assert found.is_sound
    assert found.timing() == "14 / 20"
    assert "task died" in report.line(found)


@pytest.mark.parametrize(
    "wrong", [LEFT, Outcome(error="it did not begin"), replace(GONE, harmed=["17"])]
)
def test_a_survivor_a_row_not_performed_and_a_harmed_innocent_are_not_sound(wrong: Outcome) -> None:
    found = result(ROW, GONE, wrong)
    assert not found.is_sound
    assert "not sound: a-row" in report.summary([found], 60)


def test_in_the_known_gap_only_the_hidden_helper_may_survive() -> None:
    gap = replace(ROW, expects="gap", sweep="agent")
    assert result(gap, LEFT).is_sound
    assert result(gap, LEFT).closed_by == "gap"
    assert not result(gap, LEFT, replace(LEFT, survivors=["worker-0's agent"])).is_sound


def test_what_is_not_possible_here_says_why_and_is_no_failure() -> None:
    found = RowResult(ROW, obstacle="no memory controller")
    assert found.is_sound
    assert "not possible here: no memory controller" in report.line(found)
    assert "not possible here" in report.document([found], 1, of_all=2)


@pytest.mark.parametrize("took, words", [(1999.0, "ms met"), (2001.0, "ms not met")])
def test_the_sweeps_bound_is_reported_as_met_or_not(took: float, words: str) -> None:
    swept = replace(GONE, before_sweep=["worker-0's helper (double)"], sweep=took)
    found = result(replace(ROW, expects="sweep", sweep="reap"), swept)
    assert found.is_sound
    assert words in report.sweep_text(found)
    assert "tflease reap" in report.sweep_text(found)


def test_the_document_has_a_line_for_each_row_whose_text_cannot_break_the_table() -> None:
    text = report.document([result(ROW, GONE), result(replace(ROW, name="b-row"), LEFT)], 60, 2)
    rows = [line for line in text.splitlines() if line.startswith(("| a-row", "| b-row"))]
    assert len(rows) == 2
    assert all(row.replace("\\|", "").count("|") == 11 for row in rows)


def test_rows_have_names_of_their_own_and_cover_what_they_must() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert sum(row.is_tensorflow for row in ROWS) >= 8
    assert sum(row.topology == STANDALONE for row in ROWS) >= 8
    assert {row.anchor for row in ROWS} == {"task", "executor"}
    assert any(row.grace > 0 for row in ROWS)
    assert all((row.expects == "gone") == (row.sweep == "") for row in ROWS)
