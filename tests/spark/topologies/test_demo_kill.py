"""The demo's other half: `make demo KILL=1`."""

from __future__ import annotations

import re

import pytest

from tests.spark.test_demo import accuracies, demo

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(900)]


def test_the_demo_loses_the_task_above_its_parameter_server_and_trains_again() -> None:
    """O1, R6: the bug that TensorFlowOnSpark's users meet, on stage."""
    text = demo("--kill-parameter-server-parent", "--steps", "500")
    assert "first cause: ps:0, preempted" in text
    rows = re.findall(r"│ +([\d.]+|-) │ (\S+) +│ (.*?) +│ (\d+) +│ (.*?) +│", text)
    assert rows[0][1:3] == ("ps:0", "Spark's Python worker")
    ended = {(member, part) for when, member, part, *_ in rows if when != "-"}
    members = ("chief:0", "worker:0", "worker:1", "ps:0")
    assert ended == {
        ("ps:0", "Spark's Python worker"),
        ("-", "coordinator"),
        *((member, part) for member in members for part in ("sentinel", "agent")),
        *((member, "TensorFlow process") for member in members),
    }
    times = [float(when) for when, *_ in rows if when != "-"]
    assert times == sorted(times)
    assert "processes of that run left behind: 0" in text
    assert re.search(r"port \d+ of ps:0 is free", text)
    assert len(accuracies(text)) == 1  # of the training after the accident
    assert min(accuracies(text)) >= 0.93
    assert "\nprocesses left behind: 0\n" in text
