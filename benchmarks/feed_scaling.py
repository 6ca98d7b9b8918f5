"""Rows a second into one worker and into two, by the Unix socket and over TCP with TLS.

The same rows, the same steps. A second worker brings an executor and feeders of its own; whether
that makes anything faster depends on who had cores to spare before, which is measured beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import feed, machine, spark_session
from benchmarks.feed_consumer import BATCH
from benchmarks.feed_member import take
from benchmarks.feed_scaling_result import CASES, SOCKET, TCP, Case, Sample, result
from benchmarks.feed_shapes import SHAPES, Shape, cached
from benchmarks.figure import Figure, Result, Settings

ROWS = {"a": 120_000, "c": 1_500_000}
"""By shape: wide rows, of which the bytes count, and narrow ones, of which the number does."""

_PLACEMENTS = 10
_MEMORY_MIB = 3072


def measure(settings: Settings) -> Result:
    """A Spark cluster for each number of executors and slots; within it the ways take turns."""
    from examples.local_cluster import local_cluster

    shapes = [shape for shape in SHAPES if shape.name in ROWS]
    samples: list[Sample] = []
    java = ""
    for layout in dict.fromkeys((case.workers, case.feeders) for case in CASES):
        workers, feeders = layout
        with local_cluster(workers, 1 + feeders, _MEMORY_MIB, conf=feed.BATCH_CONF) as spark:
            spark_session.warm_up(spark, workers)
            java = str(spark._jvm.java.lang.System.getProperty("java.version"))
            for case in (each for each in CASES if (each.workers, each.feeders) == layout):
                for shape in shapes:
                    samples += measure_shape(spark, case, shape, settings)
    return result(samples, shapes, java)


def measure_shape(spark: Any, case: Case, shape: Shape, settings: Settings) -> list[Sample]:
    """Both ways once without being counted, then in turns."""
    rows = ROWS[shape.name]
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="tflease-feed-") as scratch, ExitStack() as stack:
        frame = cached(spark, shape, rows, 2 * case.workers * case.feeders)
        stack.callback(frame.unpersist, blocking=True)
        cluster = stack.enter_context(_Fed(spark, case, shape, Path(scratch)))
        for repeat in range(-1, settings.repeats):
            for way in (SOCKET, TCP) if repeat % 2 == 0 else (TCP, SOCKET):
                was_quiet = machine.settle()
                worked = machine.core_seconds()
                seconds, left_out = cluster.train(frame, rows, way)
                busy = (machine.core_seconds() - worked) / seconds
                if repeat < 0:
                    continue
                samples.append(
                    Sample(case, shape.name, way, rows, seconds, busy, left_out, was_quiet)
                )
                settings.say(
                    f"({shape.name}) {case.name}, {way}, {repeat + 1} of {settings.repeats}: "
                    f"{rows / seconds:,.0f} rows/s, {busy:.1f} cores busy"
                )
    return samples


class _Fed:
    """A run of the case's workers, each on an executor of its own."""

    def __init__(self, spark: Any, case: Case, shape: Shape, ends: Path) -> None:
        self._spark, self._case, self._shape, self._ends = spark, case, shape, ends
        self._trains = 0

    def __enter__(self) -> _Fed:
        for _ in range(_PLACEMENTS):
            self._cluster = self._run()
            found = {member.executor.executor_id for member in self._cluster.status().members}
            if len(found) == self._case.workers:
                return self
            self._cluster.shutdown(grace=1.0)  # Spark seats tasks by chance
        raise RuntimeError(f"Spark has put all workers on one executor {_PLACEMENTS} times")

    def _run(self) -> Any:
        from coordinator import InputMode, Roles, TFCluster

        shape = self._shape
        args = {"batch": BATCH, "kind": shape.kind, "size": shape.size, "ends": str(self._ends)}
        return TFCluster.run(
            self._spark,
            take,
            {**args, "equal": self._case.is_equal},
            roles=Roles(worker=self._case.workers),
            input_mode=InputMode.SPARK,
            name=f"feed-scaling-{shape.name}",
            progress=False,
        )

    def train(self, frame: Any, rows: int, way: str) -> tuple[float, int]:
        """Seconds until the last row has gone through a step, and the rows left out."""
        self._trains += 1
        began_at = time.time()
        if way == TCP:
            with over_tcp():
                report = self._cluster.train(frame)
        else:
            report = self._cluster.train(frame)
        ends = [
            feed.wait_for(self._ends / f"{self._trains}-{index}").split()
            for index in range(self._case.workers)
        ]
        taken = sum(int(rows_taken) for _, rows_taken in ends)
        if not rows == report.rows == taken + report.left_out:
            raise RuntimeError(
                f"{rows} rows fed, {report.rows} reported, {taken} taken, {report.left_out} left"
            )
        return max(float(ended_at) for ended_at, _ in ends) - began_at, report.left_out

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown(grace=1.0)


@contextmanager
def over_tcp() -> Iterator[None]:
    """What the driver tells feeders of the workers is as if these were on other hosts: no path to
    a Unix socket, another boot. Raises RuntimeError when nobody was told anything meanwhile."""
    from coordinator.spark.feed import consumers

    original, told = consumers.endpoint, []

    def elsewhere(*args: Any, **options: Any) -> Any:
        told.append(replace(original(*args, **options), path="", boot_id=""))
        return told[-1]

    consumers.endpoint = elsewhere
    try:
        yield
    finally:
        consumers.endpoint = original
    if not told:
        raise RuntimeError("no endpoint was looked up: the rows have not come over TCP")


FIGURE = Figure(
    name="feed-scaling",
    summary="rows/s from Spark into 1 and 2 workers, by Unix socket and over TCP with TLS",
    measure=measure,
    repeats=3,
)
