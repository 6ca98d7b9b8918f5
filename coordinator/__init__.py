"""tflease: distributed TensorFlow on the Spark cluster you already have.

    from coordinator import Roles, TFCluster

    with TFCluster.run(spark, main_fun, args, roles=Roles(chief=1, worker=2, ps=1)) as cluster:
        result = cluster.wait()

With ``input_mode=InputMode.SPARK`` Spark feeds the members: ``cluster.train(df)`` sends rows,
``cluster.inference(df, "score float")`` brings predictions back; ``predict`` needs no cluster.
With ``gpus=Roles(worker=1)`` each worker leases a GPU, which nobody else is given before it is
proven free.
With ``restart=RestartPolicy(max_restarts=3)`` a failure that may not come again is answered with a
restart from the last checkpoint; ``stall_timeouts=StallTimeouts(step=60)`` makes members that are
stuck a failure.
``sweep`` runs many small trainings that know nothing of each other.

Importing this package loads neither grpc nor pyspark nor tensorflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordinator.core.errors import (
    CoordinatorUnavailable,
    FeatureUnavailable,
    FeedFailed,
    FeedMiscounted,
    FeedMismatch,
    FeedStalled,
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
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts

if TYPE_CHECKING:
    from coordinator.spark.cluster import TFCluster
    from coordinator.spark.driver_evaluation import DriverEvaluation, EvaluationFailed
    from coordinator.spark.examination import examine as doctor
    from coordinator.spark.feed.predict import predict
    from coordinator.spark.feed.report import FeedReport
    from coordinator.spark.feed.streaming import FeedStream
    from coordinator.spark.options import InputMode
    from coordinator.spark.results import RunResult
    from coordinator.spark.sweep import Trial, sweep
    from coordinator.spark.tensorboard import TensorBoardUnavailable

__version__ = VERSION

__all__ = [
    "CoordinatorUnavailable",
    "DriverEvaluation",
    "EvaluationFailed",
    "FeatureUnavailable",
    "FeedFailed",
    "FeedMiscounted",
    "FeedMismatch",
    "FeedReport",
    "FeedStalled",
    "FeedStream",
    "InputMode",
    "InvalidRun",
    "LimitExceeded",
    "LogUnavailable",
    "NotEnoughSlots",
    "PayloadNotPicklable",
    "PermissionDenied",
    "ReleaseUnproven",
    "ReservationTimeout",
    "RestartPolicy",
    "Roles",
    "RunCancelled",
    "RunResult",
    "SparkUnusable",
    "StallTimeouts",
    "TFCluster",
    "TensorBoardUnavailable",
    "TfleaseError",
    "TrainingFailed",
    "Trial",
    "Unauthenticated",
    "doctor",
    "predict",
    "sweep",
]

_LAZY = {
    "DriverEvaluation": ("coordinator.spark.driver_evaluation", "DriverEvaluation"),
    "EvaluationFailed": ("coordinator.spark.driver_evaluation", "EvaluationFailed"),
    "FeedReport": ("coordinator.spark.feed.report", "FeedReport"),
    "FeedStream": ("coordinator.spark.feed.streaming", "FeedStream"),
    "InputMode": ("coordinator.spark.options", "InputMode"),
    "RunResult": ("coordinator.spark.results", "RunResult"),
    "TFCluster": ("coordinator.spark.cluster", "TFCluster"),
    "TensorBoardUnavailable": ("coordinator.spark.tensorboard", "TensorBoardUnavailable"),
    "Trial": ("coordinator.spark.sweep", "Trial"),
    "doctor": ("coordinator.spark.examination", "examine"),
    "predict": ("coordinator.spark.feed.predict", "predict"),
    "sweep": ("coordinator.spark.sweep", "sweep"),
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
