"""The demo's options, and what it makes of a run's outcome."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coordinator.spark.results import RunResult
from examples.digits import parse, report
from examples.digits_run import TRAININGS, Outcome, look_at

PS, SYNC, FIT, FEED = TRAININGS


def test_by_default_everything_is_trained() -> None:
    options = parse([])
    assert options.only is None
    assert options.steps is None
    assert not options.kill_parameter_server_parent


def test_the_accident_needs_a_parameter_server() -> None:
    assert parse(["--kill-parameter-server-parent"]).only == "ps"
    with pytest.raises(SystemExit):
        parse(["--kill-parameter-server-parent", "--only", "sync"])


def test_the_smaller_accident_needs_synchronous_workers() -> None:
    assert parse(["--kill-worker"]).only == "sync"
    with pytest.raises(SystemExit):
        parse(["--kill-worker", "--only", "ps"])
    with pytest.raises(SystemExit):
        parse(["--kill-worker", "--kill-parameter-server-parent"])


@pytest.mark.parametrize("steps", ["0", "-1", "many"])
def test_steps_are_a_positive_number(steps: str) -> None:
    with pytest.raises(SystemExit):
        parse(["--steps", steps])


def test_members_are_spelled_out() -> None:
    assert PS.members == "chief, 2 workers, ps"
    assert FIT.members == "chief, worker, evaluator"


def said(returned: dict[str, object]) -> tuple[list[str], str]:
    stream = io.StringIO()
    complaints = look_at(RunResult("ab12", "digits", returned), Console(file=stream, width=120))
    return complaints, stream.getvalue()


def test_workers_whose_weights_differ_are_complained_of() -> None:
    worker = {"steps": 500, "loss": 0.1, "weights": 3.0}
    assert said({"worker:0": worker, "worker:1": worker}) == (
        [],
        "trained 500 steps to a loss of 0.1000\nthe weights of all 2 workers are the same\n",
    )
    complaints, _ = said({"worker:0": worker, "worker:1": {**worker, "weights": 3.1}})
    assert complaints == ["the workers' weights differ: [3.0, 3.1]"]


@pytest.mark.parametrize("judged", [[], [(100, 0.9)]])
def test_an_evaluator_that_missed_the_last_checkpoint_is_complained_of(judged: object) -> None:
    """E6."""
    chief = {"steps": 200, "loss": 0.1}
    complaints, _ = said({"chief:0": chief, "evaluator:0": judged})
    assert complaints == ["the evaluator missed the last checkpoint"]
    complaints, text = said({"chief:0": chief, "evaluator:0": [(100, 0.9), (200, 0.95)]})
    assert complaints == []
    assert "judged 2 checkpoints: 0.9000 at step 100, 0.9500 at step 200" in text


def test_a_complaint_makes_the_demo_fail() -> None:
    seconds = {"form": 1.0, "train": 2.0, "shut down": 0.1}
    outcome = Outcome(SYNC, "models", run_id="no-such-run", seconds=seconds, accuracy=0.97)
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    assert report(console, [outcome], 9.0, []) == 0
    assert "accuracy on held-out images: 0.9700 (at least 0.93)" in stream.getvalue()
    assert "processes left behind: 0" in stream.getvalue()
    assert report(console, [outcome], 9.0, ["port 7 is not free"]) == 1
    outcome.complaints.append("its accuracy is too low")
    assert report(console, [outcome], 9.0, []) == 1
