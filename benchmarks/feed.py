"""Rows a second from a cached DataFrame into the steps of a TensorFlow process: tflease's feed,
TensorFlowOnSpark's way, and a bare pipe that has nothing but the way.

All three in one run, in turns, on the same executor and the same rows; all end with the same loop
over batches of 256. The pipe is what could be had at best: no accounts of what was delivered, no
keys, no back-pressure but a queue's, no end that anybody is sure of.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.client_process import ClientProcess
from benchmarks.feed_consumer import AUTHKEY, BATCH
from benchmarks.feed_feeders import bare_feeder, queue_feeder
from benchmarks.feed_member import take
from benchmarks.feed_result import Sample, result
from benchmarks.feed_shapes import SHAPES, Shape, cached
from benchmarks.figure import Figure, Result, Settings

FEEDERS = 2
"""Slots for feeders beside the member's: as many as the machine has cores."""

_TIMEOUT = 300.0
BATCH_CONF = {"spark.sql.execution.arrow.maxBytesPerBatch": "4m"}
"""What tflease sets for its own jobs: the pipe gets it, too."""

Way = Callable[[Any, int], float]
"""Feeds a DataFrame of so many rows; seconds until the last one had gone through a step."""


def measure(settings: Settings) -> Result:
    """One shape after the other, the ways in turns."""
    from examples.local_cluster import local_cluster

    samples: list[Sample] = []
    with local_cluster(1, FEEDERS + 1, 3072, conf=BATCH_CONF) as spark:
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
        for shape in SHAPES:
            samples += measure_shape(spark, shape, settings)
    return result(samples, SHAPES, FEEDERS, java)


def measure_shape(spark: Any, shape: Shape, settings: Settings) -> list[Sample]:
    """Each way once without being counted, then in turns."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="tflease-feed-") as scratch, ExitStack() as stack:
        many = stack.enter_context(_held(cached(spark, shape, shape.rows, 2 * FEEDERS)))
        few = stack.enter_context(_held(cached(spark, shape, shape.few, 2 * FEEDERS)))
        ways: dict[str, tuple[Way, Any, int]] = {
            "tflease": (stack.enter_context(_Tflease(spark, shape, scratch)), many, shape.rows),
            "bare": (stack.enter_context(_Bare(shape, scratch)), many, shape.rows),
            "queue": (stack.enter_context(_Queue(shape, scratch)), few, shape.few),
        }
        for repeat in range(-1, settings.repeats):
            order = list(ways.items())
            for name, (way, frame, rows) in order if repeat % 2 == 0 else order[::-1]:
                was_quiet = machine.settle()
                seconds = way(frame, rows)
                if repeat >= 0:
                    samples.append(Sample(shape.name, name, rows, seconds, was_quiet))
                    settings.say(
                        f"({shape.name}) {repeat + 1} of {settings.repeats}: {name:8} "
                        f"{rows / seconds:12,.0f} rows/s"
                    )
    return samples


class _held:
    """A cached DataFrame, for as long as it is needed."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __enter__(self) -> Any:
        return self._frame

    def __exit__(self, *_: object) -> None:
        self._frame.unpersist(blocking=True)


class _Tflease:
    """``cluster.train`` into one worker."""

    def __init__(self, spark: Any, shape: Shape, scratch: str) -> None:
        self._spark, self._shape = spark, shape
        self._ends = Path(scratch, "ends")
        self._trains = 0

    def __enter__(self) -> _Tflease:
        from coordinator import InputMode, Roles, TFCluster

        self._ends.mkdir()
        shape = self._shape
        args = {"batch": BATCH, "kind": shape.kind, "size": shape.size, "ends": str(self._ends)}
        self._cluster = TFCluster.run(
            self._spark,
            take,
            args,
            roles=Roles(worker=1),
            input_mode=InputMode.SPARK,
            name=f"feed-{shape.name}",
            progress=False,
        )
        return self

    def __call__(self, frame: Any, rows: int) -> float:
        began_at = time.time()
        report = self._cluster.train(frame)
        self._trains += 1
        ended_at, taken = wait_for(self._ends / f"{self._trains}-0").split()
        if not rows == report.rows == int(taken):
            raise RuntimeError(f"{rows} rows fed, {report.rows} reported, {taken} taken")
        return float(ended_at) - began_at

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown(grace=1.0)


def wait_for(path: Path) -> str:
    """What a member has left there. Raises TimeoutError."""
    deadline = time.monotonic() + _TIMEOUT
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name} has not come within {_TIMEOUT:g} s")
        time.sleep(0.005)
    return path.read_text()


class _Other:
    """A consumer of its own, beside Spark."""

    way = ""

    def __init__(self, shape: Shape, scratch: str) -> None:
        self._shape = shape
        self._address = str(Path(scratch, self.way))

    def __enter__(self) -> _Other:
        shape = self._shape
        config = {
            "way": self.way,
            "address": self._address,
            "kind": shape.kind,
            "size": shape.size,
        }
        cores = sorted(os.sched_getaffinity(0))
        self._consumer = ClientProcess("benchmarks.feed_consumer", config, cores)
        self._consumer.hear(_TIMEOUT)
        return self

    def __call__(self, frame: Any, rows: int) -> float:
        began_at = time.time()
        self._consumer.tell({"rows": rows})
        self.feed(frame)
        return float(self._consumer.hear(_TIMEOUT)["at"]) - began_at

    def feed(self, frame: Any) -> None:
        """Returns when Spark has delivered."""
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


class _Bare(_Other):
    way = "bare"

    def feed(self, frame: Any) -> None:
        frame.mapInArrow(bare_feeder(self._address), "rows long").collect()


class _Queue(_Other):
    way = "queue"

    def feed(self, frame: Any) -> None:
        frame.rdd.foreachPartition(queue_feeder(self._address, AUTHKEY))


FIGURE = Figure(
    name="feed",
    summary="rows/s from Spark into TensorFlow, against TensorFlowOnSpark's way and a bare pipe",
    measure=measure,
    repeats=3,
)
