"""The Spark of a figure: executors that are there, or have worked already, and Spark's own times.

Reads Spark's internal interfaces where the public ones tell no times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_TIMEOUT = 60.0


def wait_for_executors(spark: Any, executors: int) -> None:
    """A session is there before its executors are. Raises TimeoutError."""
    tracker = spark.sparkContext._jsc.sc().statusTracker()
    deadline = time.monotonic() + _TIMEOUT
    while (found := len(tracker.getExecutorInfos()) - 1) < executors:  # the driver is among them
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found} of {executors} executors after {_TIMEOUT:g} s")
        time.sleep(0.1)


def warm_up(spark: Any, executors: int) -> None:
    """Runs a Python function on every executor, as any PySpark program has before long: the Python
    workers are there. Raises TimeoutError."""

    def daemons(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The pid of the pyspark.daemon, of which each executor has one. Inside, because only such
        a function travels by value: executors need not have the benchmarks. It takes a moment, so
        that no executor can do all the tasks before the others have got one."""
        import os
        import time

        import pyarrow as pa

        for _ in batches:
            time.sleep(0.2)
            yield pa.RecordBatch.from_pydict({"daemon": pa.array([os.getppid()], pa.int64())})

    wait_for_executors(spark, executors)
    deadline = time.monotonic() + _TIMEOUT
    seen: set[int] = set()
    while len(seen) < executors:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(seen)} of {executors} executors took a task")
        frame = spark.range(0, executors, 1, executors).mapInArrow(daemons, "daemon long")
        seen |= {row.daemon for row in frame.collect()}


def launched_at(spark: Any, tag: str) -> tuple[float, float]:
    """Unix times at which the last of the jobs with this tag was submitted, and at which the last
    of their tasks was sent to its executor."""
    scala = spark.sparkContext._jsc.sc()
    store = scala.statusStore()
    submitted, launched = [], []
    for job in scala.statusTracker().getJobIdsForTag(tag):
        submitted.append(store.job(int(job)).submissionTime().get().getTime())
        for stage in scala.statusTracker().getJobInfo(int(job)).get().stageIds():
            tasks = store.taskList(int(stage), 0, 1000)
            launched += [tasks.apply(i).launchTime().getTime() for i in range(tasks.size())]
    return max(submitted) / 1000, max(launched) / 1000
