"""A word with the keeper that nothing depends on: a farewell, a diagnosis."""

from __future__ import annotations

import logging
from typing import Any

from coordinator.spark.feed.errand import Errand
from coordinator.spark.feed.open_train import OpenTrain
from coordinator.spark.gateway import Gateway

_log = logging.getLogger("tflease")

ASIDE = 10.0
"""Seconds for it."""


def state(gateway: Gateway, train: OpenTrain) -> dict[str, Any]:
    """What the train waits for."""
    return aside(gateway, train, {"call": "state", "feed": train.feed})


def aside(gateway: Gateway, train: OpenTrain, request: dict[str, Any]) -> dict[str, Any]:
    """The answer is welcome and not waited for for long. Raises nothing."""

    def work(_: Errand[dict[str, Any]]) -> dict[str, Any]:
        # The train's own tag may be cancelled.
        return dict(train.control.call(request, ASIDE, (*train.tags[:1], f"{tag}-aside")))

    tag = train.tags[1]
    errand = Errand(gateway, work)
    try:
        errand.start()
    except Exception as error:  # of PySpark: the session was stopped
        _log.debug("a word with the keeper: %r", error)
        return {}
    if not errand.wait(ASIDE):
        errand.cancelled.set()
        gateway.cancel(f"{tag}-aside")
        return {}
    try:
        return errand.result()
    except Exception as error:  # of the keeper, of Spark
        _log.debug("a word with the keeper: %s", error)
        return {}
