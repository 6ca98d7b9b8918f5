"""tflease: distributed TensorFlow on the Spark cluster you already have.

    from coordinator import Roles, TFCluster

    with TFCluster.run(spark, main_fun, args, roles=Roles(chief=1, worker=2, ps=1)) as cluster:
        result = cluster.wait()

With ``gpus=Roles(worker=1)`` each worker leases a GPU, which nobody else is given before it is
proven free.

Importing this package loads neither grpc nor pyspark nor tensorflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordinator.core.errors import (
    CoordinatorUnavailable,
    FeatureUnavailable,
    InvalidRun,
    LogUnavailable,
    NotEnoughSlots,
    PayloadNotPicklable,
    ReleaseUnproven,
    ReservationTimeout,
    RunCancelled,
    SparkUnusable,
    TfleaseError,
    TrainingFailed,
    Unauthenticated,
)
from coordinator.core.model import VERSION, Roles

if TYPE_CHECKING:
    from coordinator.spark.cluster import TFCluster
    from coordinator.spark.options import InputMode
    from coordinator.spark.results import RunResult

__version__ = VERSION

__all__ = [
    "CoordinatorUnavailable",
    "FeatureUnavailable",
    "InputMode",
    "InvalidRun",
    "LogUnavailable",
    "NotEnoughSlots",
    "PayloadNotPicklable",
    "ReleaseUnproven",
    "ReservationTimeout",
    "Roles",
    "RunCancelled",
    "RunResult",
    "SparkUnusable",
    "TFCluster",
    "TfleaseError",
    "TrainingFailed",
    "Unauthenticated",
]

_LAZY = {
    "InputMode": "coordinator.spark.options",
    "RunResult": "coordinator.spark.results",
    "TFCluster": "coordinator.spark.cluster",
}


def __getattr__(name: str) -> Any:
    """Spark's side is loaded when it is first asked for."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """For completion in notebooks: what users import, and nothing else."""
    return [*__all__, "__version__"]
