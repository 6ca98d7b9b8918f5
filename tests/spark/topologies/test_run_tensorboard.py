"""What a user sees of a run on Spark in a real browser, before the training is over."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster
from tests.browser import Browser, browser
from tests.spark.helpers import eventually

pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'tflease[tensorboard]'")
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
__all__ = ["browser"]  # the fixture


def train_until(gate: str, ctx: Any) -> int:
    import tensorflow as tf

    step = 0
    with tf.summary.create_file_writer(os.path.join(ctx.log_dir, "train")).as_default():
        while not os.path.exists(gate) and not ctx.wait_for_stop(0.1):
            tf.summary.scalar("training_loss", 1.0 / (step + 1), step=step)
            step += 1
    return step


def tensorboards() -> list[psutil.Process]:
    own = psutil.Process().children(recursive=True)
    return [each for each in own if "tensorboard" in " ".join(each.cmdline())]


def test_a_browser_shows_the_scalars_of_both_workers_of_a_run_that_trains(
    spark: Any, gate: Path, browser: Browser
) -> None:
    """The whole way: from the members' files through the coordinator to TensorBoard's page."""
    with TFCluster.run(
        spark,
        train_until,
        str(gate),
        roles=Roles(worker=2),
        tensorboard=True,
        progress=False,
        reservation_timeout=300.0,
    ) as cluster:
        url = cluster.tensorboard_url()
        assert url is not None

        def has_both() -> bool:
            with urllib.request.urlopen(f"{url}data/plugin/scalars/tags", timeout=60) as answer:
                said = answer.read()
            return b"worker-0/train" in said and b"worker-1/train" in said

        eventually(has_both, "the runs of both workers", 120)
        browser.open(f"{url}#timeseries")
        browser.wait_for("training_loss", "worker-0/train", "worker-1/train")
        assert not cluster.status().phase.is_terminal
        assert tensorboards()
        gate.touch()
        assert set(cluster.wait(120).returned) == {"worker:0", "worker:1"}
        assert tensorboards()  # it stays for a look at the end
    assert not tensorboards()
