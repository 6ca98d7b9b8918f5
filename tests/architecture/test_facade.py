"""The public names of `coordinator`: taking one away, or adding one, is a decision made here."""

from __future__ import annotations

import types

import coordinator

# EDIT HERE, and in CHANGELOG.md: what users import, in alphabetical order.
EXPORTS = [
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


def test_all_is_the_frozen_list() -> None:
    assert sorted(coordinator.__all__) == EXPORTS


def test_every_export_can_be_had() -> None:
    assert not [name for name in EXPORTS if getattr(coordinator, name, None) is None]


def test_nothing_else_is_public() -> None:
    """Submodules show up once something has imported them; exports may be loaded on first use."""
    public = {
        name
        for name in dir(coordinator)
        if not name.startswith("_")
        and name != "annotations"
        and not isinstance(getattr(coordinator, name), types.ModuleType)
    }
    assert public <= set(EXPORTS)


def test_every_export_explains_itself_to_help() -> None:
    assert not [name for name in EXPORTS if not (getattr(coordinator, name).__doc__ or "").strip()]
