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
    LimitExceeded,
    LogUnavailable,
    NotEnoughSlots,
    PayloadNotPicklable,
    PermissionDenied,
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
    from coordinator.spark.examination import examine as doctor
    from coordinator.spark.options import InputMode
    from coordinator.spark.results import RunResult

__version__ = VERSION

__all__ = [
    "CoordinatorUnavailable",
    "FeatureUnavailable",
    "InputMode",
    "InvalidRun",
    "LimitExceeded",
    "LogUnavailable",
    "NotEnoughSlots",
    "PayloadNotPicklable",
    "PermissionDenied",
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
    "doctor",
]

_LAZY = {
    "InputMode": ("coordinator.spark.options", "InputMode"),
    "RunResult": ("coordinator.spark.results", "RunResult"),
    "TFCluster": ("coordinator.spark.cluster", "TFCluster"),
    "doctor": ("coordinator.spark.examination", "examine"),
}


def __getattr__(name: str) -> Any:
    """Spark's side is loaded when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, its_name = _LAZY[name]
    return getattr(importlib.import_module(module), its_name)


def __dir__() -> list[str]:
    """For completion in notebooks: what users import, and nothing else."""
    return [*__all__, "__version__"]
