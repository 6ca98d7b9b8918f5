"""TensorFlow's own checkpoints of a real run, evaluated on the driver while it trains and deletes
old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator import TFCluster
from tests.spark.helpers import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
STEPS = 5


def train(evaluated: str, ctx: Any) -> None:
    """Keeps one checkpoint, and goes on once the first is evaluated."""
    from pathlib import Path
    from time import sleep

    import tensorflow as tf

    weights = tf.Variable([0.0, 0.0])
    checkpoint = tf.train.Checkpoint(weights=weights)
    manager = tf.train.CheckpointManager(checkpoint, ctx.checkpoint_dir, max_to_keep=1)
    for step in range(1, STEPS + 1):
        weights.assign([step, -step])
        with ctx.section("checkpoint"):
            manager.save(checkpoint_number=step)
        while not Path(evaluated).exists() and not ctx.should_stop:
            sleep(0.05)


def evaluate(evaluated: str, checkpoint: Any) -> dict[str, Any]:
    from pathlib import Path

    import tensorflow as tf

    weights = tf.Variable([0.0, 0.0])
    status = tf.train.Checkpoint(weights=weights).read(checkpoint.path)
    status.assert_existing_objects_matched()
    Path(evaluated).touch()
    return {"distance": tf.norm(weights), "gpus": len(tf.config.list_physical_devices("GPU"))}


def test_checkpoints_of_tensorflow_are_evaluated_to_the_last(spark: Any, tmp_path: Path) -> None:
    evaluated = str(tmp_path / "evaluated")
    with TFCluster.run(
        spark, train, evaluated, roles={"worker": 1}, model_dir=str(tmp_path / "model"),
        progress=False,
    ) as cluster:  # fmt: skip
        evaluation = cluster.evaluate_on_driver(evaluate, evaluated, every=0.1)
        cluster.wait(3 * DEADLINE)
        found = evaluation.wait(3 * DEADLINE)
    assert (found[0].step, found[-1].step) == (1, STEPS)
    for each in found:
        assert dict(each.metrics) == {"distance": pytest.approx(each.step * 2**0.5), "gpus": 0}
