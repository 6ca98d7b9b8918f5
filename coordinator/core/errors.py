"""One error tree, named by what the caller can do about it.

Each class has a stable ``reason`` that travels as ``google.rpc.ErrorInfo.reason`` in the domain
``tflease``; whatever varies in the message is in ``metadata`` too. The gRPC code of each is in
``coordinator.status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from coordinator.core.model import Failure


class TfleaseError(Exception):
    """Whatever tflease raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidRun(TfleaseError, ValueError):
    """The run that was asked for makes no sense: change the arguments."""

    reason = "INVALID_RUN"


class PayloadNotPicklable(InvalidRun):
    """``main_fun`` or its arguments cannot be sent to executors; the message names the object."""

    reason = "PAYLOAD_NOT_PICKLABLE"


class FeatureUnavailable(TfleaseError):
    """This version cannot do that yet."""

    reason = "FEATURE_UNAVAILABLE"


class SparkUnusable(TfleaseError):
    """The Spark session cannot run anything: stopped, or of a kind that is not supported."""

    reason = "SPARK_UNUSABLE"


class NotEnoughSlots(TfleaseError):
    """Spark can never seat the run: fewer members, or more executors and cores."""

    reason = "NOT_ENOUGH_SLOTS"


class TrainingFailed(TfleaseError):
    """The run failed. ``failure`` has the first cause and what else failed with it."""

    reason = "TRAINING_FAILED"

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class ReservationTimeout(TrainingFailed, TimeoutError):
    """The members were not all there in time; the message says who is missing and why."""

    reason = "RESERVATION_TIMEOUT"


class RunCancelled(TfleaseError):
    """Somebody stopped the run, or its owner went away."""

    reason = "RUN_CANCELLED"


class ReleaseUnproven(TfleaseError):
    """Something of the run may be left; the message names what and where."""

    reason = "RELEASE_UNPROVEN"


class FeedMismatch(TfleaseError, ValueError):
    """Rows are not what the feed can take, or was told to expect; the message names the columns."""

    reason = "FEED_MISMATCH"


class FeedFailed(TfleaseError):
    """The Spark job that feeds failed by itself: a function of the user's raised, a file is gone.
    The members live on and can be fed again."""

    reason = "FEED_FAILED"


class FeedMiscounted(FeedFailed):
    """Feeders delivered one number of rows, and members took another: what was trained on is not
    what was asked for. A bug of ours."""

    reason = "FEED_MISCOUNTED"


class FeedStalled(FeedFailed, TimeoutError):
    """Neither Spark nor the members moved for long; the message says who waits for what."""

    reason = "FEED_STALLED"


class CoordinatorUnavailable(TfleaseError):
    """The coordinator cannot be reached, or ended."""

    reason = "COORDINATOR_UNAVAILABLE"


class Unauthenticated(TfleaseError):
    """The caller has no valid token."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(TfleaseError):
    """The caller's token is good, but not for this: use the token of another role, or run."""

    reason = "PERMISSION_DENIED"


class LimitExceeded(TfleaseError):
    """More than the coordinator takes, of what the message names: ask for less, or later, or have
    the limit raised."""

    reason = "LIMIT_EXCEEDED"


class UnknownRun(TfleaseError):
    """The coordinator knows no such run."""

    reason = "UNKNOWN_RUN"


class RunOver(TfleaseError):
    """The run is ending or has ended: there is nothing to join."""

    reason = "RUN_OVER"


class InvalidReservation(TfleaseError, ValueError):
    """The run has no such slot, or the claim is malformed."""

    reason = "INVALID_RESERVATION"


class ExecutorUnfit(TfleaseError):
    """This executor cannot serve the run; the message says why and what to change."""

    reason = "EXECUTOR_UNFIT"


class LogUnavailable(TfleaseError):
    """There is nobody to read the member's log; the message says where it should be."""

    reason = "LOG_UNAVAILABLE"


class StaleIncarnation(TfleaseError):
    """Another task attempt holds the slot, or nobody does: stop."""

    reason = "STALE_INCARNATION"


class LeaseLost(TfleaseError):
    """The lease of a GPU is unknown, has lapsed, or was granted to another since: stop."""

    reason = "LEASE_LOST"


class UnknownGpu(TfleaseError):
    """The coordinator has not heard of such a GPU."""

    reason = "UNKNOWN_GPU"


class GpuHeld(TfleaseError):
    """Somebody holds the GPU: stop that run first."""

    reason = "GPU_HELD"


class GpusUnavailable(TfleaseError, TimeoutError):
    """The GPUs were not to be had in time; the message says who has them."""

    reason = "GPUS_UNAVAILABLE"
