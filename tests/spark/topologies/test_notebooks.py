"""The notebooks of examples/mnist as on a cluster of one's own: a master that is running already,
and a store in place of a directory that driver and executors share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.notebooks.runner import runner
from tests.object_store import ObjectStore
from tests.spark.standalone import standalone_cluster

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(900)]

STORE = "s3://bucket/mnist"


def test_notebooks_run_on_a_cluster_and_a_store_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner()
    monkeypatch.delenv("TFLEASE_MNIST", raising=False)
    monkeypatch.setenv("TFLEASE_EXAMPLE_STORE", STORE)
    with ObjectStore() as store:
        earlier = f"{STORE}/tflease-model/checkpoints/of-an-earlier-run"
        store.put(earlier, b"")
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)  # executors have it from their workers
        with standalone_cluster(tmp_path / "cluster", cores=1) as cluster:
            monkeypatch.setenv("TFLEASE_EXAMPLE_MASTER", cluster.url)
            texts = {}
            for path in run.chosen(["0", "1", "4"]):
                notebook, _ = run.execute(path, tmp_path)  # raises what a cell raises
                texts[path.name[0]] = json.dumps(notebook)
        kept = store.names(STORE)
    assert f"on {cluster.url}" in texts["0"]
    assert [name for name in kept if "/tflease-data/" in name] == [
        f"bucket/mnist/tflease-data/part-{number:02}.npz" for number in range(8)
    ]
    assert "bucket/mnist/tflease-model/digits.keras" in kept
    assert earlier.removeprefix("s3://") not in kept
    assert not list((tmp_path / "mnist").rglob("*.npz")), "nothing goes to the driver's directory"
