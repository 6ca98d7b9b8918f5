"""A training whose model_dir is an object store and nothing else: no place that members share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from coordinator import Roles
from coordinator.core.model import Cause
from tests.object_store import ObjectStore
from tests.spark.topologies.restarting import (
    begin,
    history,
    left_of,
    process_of,
    wait_for_step,
)

# What it uses of this module is sent by value: executors have no tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]

STEPS, SAVE_EVERY, LATE = 400, 10, 200


def train(args: Any, ctx: Any) -> Any:
    """The chief counts in a variable that it saves, and exports it; the worker follows."""
    import tensorflow as tf

    total = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(total=total)
    latest = ctx.latest_checkpoint()
    if latest is not None:
        checkpoint.restore(latest).assert_consumed()
    began_at = int(total.numpy())
    if not ctx.is_chief:
        return began_at, latest
    manager = tf.train.CheckpointManager(checkpoint, ctx.checkpoint_dir, max_to_keep=2)
    while (done := int(total.assign_add(1).numpy())) < STEPS:
        ctx.report_progress(done)
        if done % SAVE_EVERY == 0:
            with ctx.section("checkpoint"):
                manager.save(checkpoint_number=done)
        ctx.wait_for_stop(0.02)
    manager.save(checkpoint_number=done)  # main_fun ends before it is copied
    tf.saved_model.save(tf.Module(), f"{ctx.local_dir}/export")
    return began_at, ctx.upload(f"{ctx.local_dir}/export")


def test_a_chief_that_is_killed_goes_on_from_the_store_and_its_last_save_is_there(
    spark: Any, tmp_path: Path
) -> None:
    """E6, too: what it saved last, and the export, are there when the run has ended."""
    with ObjectStore() as store:
        store.put("s3://bucket/keep", b"")
        options: dict[str, Any] = {"preload": ("tensorflow",), "reservation_timeout": 200.0}
        roles = Roles(chief=1, worker=1)
        url = "s3://bucket/runs/1"
        with begin(
            spark, train, tmp_path, roles, model_dir=url, env=store.environment, **options
        ) as cluster:
            wait_for_step(cluster, LATE)
            process_of(cluster, "chief:0").kill()
            result = cluster.wait(200)
        assert history(cluster) == [("chief:0", Cause.KILLED_BY_SIGNAL.value, 1)]
        began_at, export = result["chief:0"]
        assert began_at >= LATE - 5 * SAVE_EVERY
        assert began_at % SAVE_EVERY == 0
        assert export == f"{url}/export"
        names = [each.removeprefix("bucket/runs/1/") for each in store.names(url)]
        generations = sorted({each.split("/")[1] for each in names if "checkpoints/" in each})
        assert [each[-5:] for each in generations] == ["-0001", "-0002"]
        of_the_last = [each for each in names if each.startswith(f"checkpoints/{generations[1]}/")]
        assert [each.split("/")[-1] for each in of_the_last] == [
            "checkpoint",
            *(f"ckpt-{n}.{end}" for n in (STEPS - SAVE_EVERY, STEPS)
              for end in ("data-00000-of-00001", "index")),
        ]  # fmt: skip
        assert "export/saved_model.pb" in names
        assert left_of(cluster) == []
