"""Each example to its end on real executors, small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator import TrainingFailed, sweep
from examples import clicks, images_sync
from examples import sweep as sweep_example
from examples.digits_run import ship_examples

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def shipped(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The session, with the examples on its executors."""
    ship_examples(spark, str(tmp_path_factory.mktemp("shipped")))
    return spark


def test_clicks_are_learnt_on_tables_in_shards_and_go_on_from_a_checkpoint(
    shipped: Any, tmp_path: Path
) -> None:
    model_dir = str(tmp_path / "model")
    first = clicks.run(shipped, steps=500, model_dir=model_dir, progress=False)
    assert first["steps"] == 500
    assert first["shards"] == 2
    assert 0.6 < first["auc"] < first["best"]
    assert 0.6 < first["logistic"] < first["best"]
    again = clicks.run(shipped, steps=1000, model_dir=model_dir, progress=False)
    assert again["steps"] == 1000
    assert again["auc"] > first["auc"]
    assert again["auc"] > again["logistic"]


def test_a_convolutional_network_is_trained_in_step(shipped: Any) -> None:
    found = images_sync.run(shipped, steps=100, progress=False)
    assert len({each["weights"] for each in found.values()}) == 1
    assert found["worker:0"]["accuracy"] > 0.8
    assert found["worker:1"]["accuracy"] is None


def test_a_sweep_keeps_what_failed_and_returns_the_others(shipped: Any) -> None:
    settings = sweep_example.trials(epochs=1, with_a_failure=True)[:3]
    found = sweep(shipped, sweep_example.try_setting, settings, parallel=2, progress=False)
    assert [each.args for each in found] == settings
    assert [each.is_ok for each in found] == [True, False, True]
    assert isinstance(found[1].error, TrainingFailed)
    assert "units" in str(found[1].error)
    assert all(0.0 < each.value <= 1.0 for each in found if each.is_ok)
