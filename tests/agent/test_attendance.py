"""What a member's process says becomes a report that can travel, or is named as nonsense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from executor_agent.member_reports import Entered, Progressed, Ready, Report, report_from


@pytest.mark.parametrize(
    "message, report",
    [
        ({"event": "ready", "versions": {"python": "3.11"}}, Ready({"python": "3.11"})),
        ({"event": "ready", "versions": {"x": None}}, Ready({"x": "None"})),
        ({"event": "running"}, Entered(7)),
        ({"event": "progress", "step": 3, "metrics": {"loss": 1}}, Progressed(7, 3, {"loss": 1.0})),
        ({"event": "progress", "step": "3", "metrics": {}}, Progressed(7, 3)),
        ({"event": "finished", "outcome": {}}, None),
        ({"event": "of a newer version"}, None),
        ({"event": "progress"}, None),
        ({}, None),
    ],
)
def test_what_a_process_says_becomes_a_report(message: dict[str, Any], report: Report) -> None:
    assert report_from(message, 7) == report


def test_a_loss_that_is_no_number_any_more_is_reported() -> None:
    """Just what the user must see."""
    report = report_from({"event": "progress", "step": 1, "metrics": {"loss": math.nan}}, 1)
    assert isinstance(report, Progressed)
    assert math.isnan(report.metrics["loss"])


@pytest.mark.parametrize(
    "message",
    [
        {"event": "progress", "step": "many", "metrics": {}},
        {"event": "progress", "step": math.nan, "metrics": {}},
        {"event": "progress", "step": math.inf, "metrics": {}},
        {"event": "progress", "step": 2**63, "metrics": {}},
        {"event": "progress", "step": -1, "metrics": {}},
        {"event": "progress", "step": None, "metrics": {}},
        {"event": "progress", "step": 1, "metrics": [1.0]},
        {"event": "progress", "step": 1, "metrics": {"loss": "high"}},
        {"event": "progress", "step": 1, "metrics": {"loss": 10**400}},
        {"event": "ready", "versions": "3.11"},
    ],
)
def test_nonsense_is_named_and_nothing_worse(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        report_from(message, 1)
