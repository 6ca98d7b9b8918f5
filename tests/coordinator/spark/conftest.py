"""A Spark session that is a stand-in passes for one where it is handed to `TFCluster.run`."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.spark import gateway
from tests.coordinator.spark.fake_spark import FakeSpark


@pytest.fixture(autouse=True)
def _stand_ins_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_gateway(spark: Any, **options: Any) -> Any:
        if isinstance(spark, FakeSpark):
            return spark
        return gateway.open_gateway(spark, **options)

    monkeypatch.setattr("coordinator.spark.cluster.open_gateway", open_gateway)
