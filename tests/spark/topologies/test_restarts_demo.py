"""A restart for people to see: `make demo DEMO_ARGS=--kill-worker`."""

from __future__ import annotations

import re

import pytest

from tests.spark.test_demo import accuracies, demo

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(600)]


def test_the_demo_loses_a_worker_and_trains_on_to_a_good_model() -> None:
    text = demo("--kill-worker")
    assert re.search(r"step \d+: SIGKILL to the TensorFlow process of worker:1, pid \d+", text)
    assert re.search(r"restart 1: worker:1 on .* was killed by signal 9", text)
    assert re.search(r"generation 2 went on from the checkpoint of step [1-9]\d*00", text)
    assert "the weights of all 2 workers are the same" in text
    assert len(accuracies(text)) == 1
    assert min(accuracies(text)) >= 0.93
    assert "\nprocesses left behind: 0\n" in text
