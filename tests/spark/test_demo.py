"""The product's front door: what `make demo` promises, on real Spark with real TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.tensorflow
@pytest.mark.timeout(600)
def test_the_demo_trains_a_good_model_and_leaves_nothing_behind() -> None:
    """Chief, two workers and a parameter server; the saved model judged in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.digits"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"accuracy on held-out images: (0\.\d+)", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy[1]) >= 0.93
    assert "processes left behind: 0" in done.stdout
