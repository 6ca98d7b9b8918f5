"""Whether a partition that Spark computes again has the same rows in the same order.

Only then can a retried task leave out what its first attempt had delivered. Spark knows for each
RDD; a DataFrame is asked by its plan. What is not known counts as not deterministic: rows may then
come twice after a failure, and the report says so, whereas a wrong yes would lose rows silently.
"""

from __future__ import annotations

import logging
import re
from typing import Any

_log = logging.getLogger("tflease")

_DETERMINATE = "DETERMINATE"

_SHUFFLE = re.compile(r"^[\s:+\-*()\d|]*(?:Shuffle|Range|Hash|RoundRobin)?Exchange\b", re.MULTILINE)
"""A line of a physical plan: rows come over the network, in the order in which they arrive."""

_RUNS_JOBS = ("BroadcastExchange", "Subquery")
"""Plans with these parts run jobs as soon as an RDD is made of them."""


def is_deterministic(data: Any, asked: bool | None) -> bool:
    """The caller's word (``asked``), else Spark's, else no."""
    if asked is not None:
        return asked
    found = level(data)
    return found is True


def level(data: Any) -> bool | None:
    """What Spark says of a DataFrame or an RDD; None where it does not say: Spark Connect, a plan
    that cannot be asked without running a part of it. Starts no job. Raises nothing."""
    try:
        if hasattr(data, "_jdf"):
            return _of_frame(data._jdf)
        if hasattr(data, "_jrdd"):
            return _is_determinate(data._jrdd.rdd())
    except Exception as error:  # internal interfaces
        _log.debug("Spark does not say whether the rows keep their order: %s", error)
    return None


def _of_frame(frame: Any) -> bool | None:
    execution = frame.queryExecution()
    # Functions that are said to be non-deterministic; the RDD's level does not know of them.
    if not execution.optimizedPlan().deterministic():
        return False
    plan = str(execution.executedPlan().toString())
    if _SHUFFLE.search(plan):
        return False
    if any(part in plan for part in _RUNS_JOBS):
        return None
    return _is_determinate(execution.toRdd())


def _is_determinate(rdd: Any) -> bool:
    return str(rdd.outputDeterministicLevel().toString()) == _DETERMINATE
