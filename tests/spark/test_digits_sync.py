"""The synchronous example when it is told to stop: no worker may leave the others alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator import Roles, RunCancelled, TFCluster
from coordinator.core.model import Cause
from examples.digits_data import MODEL_FILE
from examples.digits_run import ship_examples
from examples.digits_sync import train_in_step
from tests.spark.helpers import eventually


@pytest.mark.tensorflow
@pytest.mark.timeout(400)
def test_workers_in_step_that_are_told_to_stop_agree_on_it_save_and_return(
    spark: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Not this test's own folder: executors may fetch the archive as long as the session lives.
    ship_examples(spark, str(tmp_path_factory.mktemp("shipped")))
    with TFCluster.run(
        spark,
        train_in_step,
        {"steps": 10_000_000},
        roles=Roles(worker=2),
        model_dir=str(tmp_path / "model"),
        grace={"worker": 120.0},
        progress=False,
        reservation_timeout=200.0,
    ) as cluster:
        eventually(lambda: any(each.step for each in cluster.status().members), "a step", 120.0)
        cluster.stop("enough of it")
        with pytest.raises(RunCancelled, match="enough of it"):
            cluster.wait(150)
    ends = [member.exit for member in cluster.status().members]
    assert [end and end.cause for end in ends] == [Cause.COMPLETED] * 2
    assert (tmp_path / "model" / MODEL_FILE).stat().st_size > 0
