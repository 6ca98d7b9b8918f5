"""What feeders bring home one by one, of jobs that do not come to their end.

A job's rows are there when all of its tasks have ended; Spark's accumulators when each task has.
Spark Connect has none: there nothing is known of a job that was cut short.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from executor_agent.feed.feeder import Account

_log = logging.getLogger("tflease")


class Homecoming:
    """Of one run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived: deque[dict[str, Any]] = deque()
        self._account: Any = None
        self._context: Any = None

    def account(self, data: Any) -> Any:
        """For the feeders of ``data``; None where Spark has none."""
        context = context_of(data)
        if context is None:
            return None
        with self._lock:
            try:
                if self._context is not context:
                    self._account = context.accumulator(self._arrived, Account())
                    self._context = context
            except Exception as error:  # a context that was stopped
                _log.debug("feeders bring nothing home before their job has ended: %s", error)
                return None
            return self._account

    def take(self, feed: str, train: int, epoch: int) -> list[dict[str, Any]]:
        """The rows that have come, once each."""
        with self._lock:
            wanted = []
            for _ in range(len(self._arrived)):
                row = self._arrived.popleft()
                if (row["feed"], row["train"], row["epoch"]) == (feed, train, epoch):
                    wanted.append(row)
                else:  # of another feed
                    self._arrived.append(row)
            return wanted


def context_of(data: Any) -> Any:
    """The SparkContext of a classic DataFrame or of an RDD; None on Spark Connect."""
    if hasattr(data, "_jdf"):
        return data.sparkSession.sparkContext
    return data.context if hasattr(data, "_jrdd") else None


def partitioning(data: Any, *, deterministic: bool) -> object:
    """Another one when the same rows may come in other partitions, if they are computed again; None
    when that cannot be told. An RDD has been cut for good; Spark cuts a DataFrame for each job
    anew, files and ranges by the number of cores that there are."""
    context = context_of(data) if deterministic else None
    if context is None:
        return None
    try:
        return ("cores", int(context.defaultParallelism)) if hasattr(data, "_jdf") else ("fixed",)
    except Exception as error:  # py4j's, of a context that was stopped
        _log.debug("Spark does not say how it cuts the data: %s", error)
        return None
