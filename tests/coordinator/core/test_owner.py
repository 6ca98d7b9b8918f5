"""O13: a run whose owner is away for too long is cancelled, and not a moment before."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.errors import InvalidRun
from coordinator.core.model import Roles, RunPhase, RunSpec
from tests.coordinator.core.scene import RUN, Scene, told_to_stop

CAME, LEFT = events.OwnerCame(RUN), events.OwnerLeft(RUN)
TWO = ["worker:0", "worker:1"]


def scene(timeout: float | None = 300.0) -> Scene:
    made = Scene(Roles(worker=2), owner_timeout=timeout)
    made.form()
    return made


def test_an_owner_that_never_came_loses_its_run() -> None:
    run = scene()
    run.wait(299)
    assert run.phase is RunPhase.RUNNING
    assert told_to_stop(run.wait(1)) == TWO
    assert run.view.stop_reason == "its owner, the driver, was away for 300 s"


def test_while_the_owner_is_there_no_clock_runs() -> None:
    run = scene()
    run.handle(CAME)
    run.wait(3600)
    assert run.phase is RunPhase.RUNNING


def test_the_clock_begins_when_the_session_closes_and_ends_when_the_owner_is_back() -> None:
    run = scene()
    run.handle(CAME)
    run.wait(1000)
    run.handle(LEFT)
    run.wait(299)
    run.handle(CAME)
    run.wait(1000)
    assert run.phase is RunPhase.RUNNING
    run.handle(LEFT)
    assert told_to_stop(run.wait(300)) == TWO


def test_a_session_that_closes_while_another_is_open_begins_nothing() -> None:
    """After a cut the new session may open before the old one is known to be dead."""
    run = scene()
    run.handle(CAME)
    run.handle(CAME)
    run.handle(LEFT)
    run.wait(3600)
    assert run.phase is RunPhase.RUNNING


def test_without_a_timeout_the_owner_may_stay_away() -> None:
    run = scene(timeout=None)
    run.handle(CAME)
    run.handle(LEFT)
    run.wait(36000)
    assert run.phase is RunPhase.RUNNING


def test_the_time_in_which_the_coordinator_was_away_counts_for_nobody() -> None:
    run = scene()
    run.handle(events.CoordinatorPaused(1000.0))
    run.now += 1000.0
    run.wait(299)
    assert run.phase is RunPhase.RUNNING
    run.wait(1)
    assert run.phase is RunPhase.STOPPING


def test_a_run_that_ends_already_keeps_its_reason() -> None:
    run = scene()
    run.stop(reason="enough")
    run.wait(301)
    assert run.view.stop_reason == "enough"


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidRun, match="owner_timeout"):
        RunSpec(Roles(worker=1), owner_timeout=timeout)
