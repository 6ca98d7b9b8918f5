"""The example's table of a run, on a terminal and in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from examples.live_view import LiveView

MEMBER = MemberView(
    MemberId.parse("worker:0"), MemberPhase.RUNNING, 0.0, step=7, metrics={"loss": 0.25}
)
RUNNING = RunView(RunId("ab12"), RunSpec(Roles(worker=1)), RunPhase.RUNNING, 1, (MEMBER,), 0.0, 1)


@pytest.mark.parametrize("name", ["loss", "[/]", "[bold]loss", "loss[0]"])
def test_a_terminal_shows_each_member_with_its_numbers_whatever_their_names(name: str) -> None:
    stream = io.StringIO()
    run = replace(RUNNING, members=(replace(MEMBER, metrics={name: 0.25}),))
    with LiveView(Console(file=stream, force_terminal=True, width=120)) as view:
        view.show(run)
    assert "worker:0" in stream.getvalue()
    assert f"step 7, {name} 0.2500" in stream.getvalue()


def test_a_log_gets_a_line_for_each_new_phase() -> None:
    stream = io.StringIO()
    with LiveView(Console(file=stream, width=120)) as view:
        for run in (RUNNING, RUNNING, replace(RUNNING, phase=RunPhase.SUCCEEDED)):
            view.show(run)
    assert stream.getvalue().splitlines() == ["1 of 1 members running, step 7", "succeeded"]
