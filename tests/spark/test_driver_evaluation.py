"""Checkpoints of a real run, evaluated on the driver while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import TFCluster
from tests.spark.helpers import DEADLINE, eventually, wait_for_file

pytestmark = pytest.mark.slow


def save_twice(args: dict[str, str], ctx: Any) -> None:
    """As TensorFlow saves; the second time once the driver says so."""
    from pathlib import Path
    from time import sleep

    folder = Path(ctx.checkpoint_dir)
    for step in (1, 2):
        if step == 2:
            while not Path(args["gate"]).exists() and not ctx.should_stop:
                sleep(0.02)
        if ctx.is_chief:
            (folder / f"ckpt-{step}.data-00000-of-00001").write_text(str(step))
            (folder / f"ckpt-{step}.index").write_bytes(bytes.fromhex("57fb808b247547db"))


def read_back(args: None, checkpoint: Any) -> dict[str, float]:
    with open(f"{checkpoint.path}.data-00000-of-00001") as file:
        return {"value": float(file.read())}


def wait_and_hang(args: str, checkpoint: Any) -> None:
    import pathlib
    import time

    pathlib.Path(args).touch()
    time.sleep(600)


def test_results_come_while_the_cluster_trains_and_the_last_after_it(
    spark: Any, tmp_path: Path, gate: Path
) -> None:
    with TFCluster.run(
        spark,
        save_twice,
        {"gate": str(gate)},
        roles={"worker": 2},
        model_dir=str(tmp_path / "model"),
        preload=(),
        progress=False,
    ) as cluster:
        evaluation = cluster.evaluate_on_driver(read_back, every=0.1)
        (first,) = eventually(evaluation.results, "the first evaluation")
        assert (first.step, dict(first.metrics)) == (1, {"value": 1.0})
        gate.touch()
        cluster.wait(DEADLINE)
        *_, last = evaluation.wait(DEADLINE)
        assert (last.step, dict(last.metrics)) == (2, {"value": 2.0})


def test_an_evaluation_ends_with_the_cluster(spark: Any, tmp_path: Path, gate: Path) -> None:
    model = tmp_path / "model" / "checkpoints" / "20200131T120000Z-4f1c0a9be3d2-0001"
    model.mkdir(parents=True)
    (model / "ckpt-7.data-00000-of-00001").touch()
    (model / "ckpt-7.index").write_bytes(bytes.fromhex("57fb808b247547db"))
    begun = tmp_path / "begun"
    cluster = TFCluster.run(
        spark,
        save_twice,
        {"gate": str(gate)},
        roles={"worker": 1},
        model_dir=str(tmp_path / "model"),
        preload=(),
        progress=False,
    )
    with cluster:
        evaluation = cluster.evaluate_on_driver(wait_and_hang, str(begun), every=0.1)
        wait_for_file(begun)
        processes = psutil.Process(evaluation.pid).children(recursive=True)
        assert processes
    assert not [each for each in processes if each.is_running()]
    assert evaluation.wait(0.0) == ()
