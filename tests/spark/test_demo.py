"""The product's front door: what `make demo` promises, on real Spark with real TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(900)]


def demo(*options: str) -> str:
    """What the demo prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.digits", *options],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    print(done.stdout)  # for whoever looks at a failed test
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracies(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"accuracy on held-out images: (0\.\d+)", text)]


def test_the_demo_trains_good_models_in_four_ways_and_leaves_nothing_behind() -> None:
    """Parameter server; two synchronous workers without a chief; chief, worker and evaluator; two
    workers that Spark feeds. The saved models are judged in a new process. E6: the evaluator misses
    no checkpoint."""
    text = demo("--steps", "500")
    assert len(accuracies(text)) == 4
    assert min(accuracies(text)) >= 0.93
    assert "the weights of all 2 workers are the same" in text
    assert "feed 'input': 35,925 rows" in text, "25 epochs of 1,437 images"
    [curve] = re.findall(r"the evaluator judged 5 checkpoints: (.*)", text)
    judged = re.findall(r"(0\.\d+) at step (\d+)", curve)
    assert [int(step) for _, step in judged] == [100, 200, 300, 400, 500]
    assert float(judged[-1][0]) == pytest.approx(accuracies(text)[2], abs=1e-4)
    for line in ("chief, 2 workers, ps", "2 workers", "chief, worker, evaluator"):
        assert re.search(rf"│ {line} +│ +\d+\.\d │ +\d+\.\d │ +\d+\.\d │", text), line
    assert "\nprocesses left behind: 0\n" in text
