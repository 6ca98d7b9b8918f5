"""Much to feed: many rows, many partitions, one huge row, and a consumer that cannot keep up. No
process may grow with what goes through it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import InputMode, Roles, TFCluster
from examples.local_cluster import local_cluster
from tests.spark.helpers import DEADLINE, command, eventually, member_process_of

MIB = 2**20
ROOM = 200 * MIB
"""What any process may take beyond what it had before the first row."""


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with local_cluster(executors=2, cores=2, memory_mib=2048) as session:
        yield session


def count(args: Any, ctx: Any) -> None:
    """Rows and their sum, for each train."""
    from pathlib import Path

    number = 0
    while not ctx.should_stop:
        rows = total = 0
        for batch in ctx.feed_batches(args["batch"], equal_steps=False):
            rows += len(batch["id"])
            total += int(batch["id"].sum())
            if args["pause"]:
                ctx.wait_for_stop(args["pause"])
        number += 1
        done = Path(args["folder"], f"{number}-{ctx.task_index}")
        done.with_suffix(".part").write_text(f"{rows} {total}")
        done.with_suffix(".part").rename(done)


@contextmanager
def fed(spark: Any, folder: Path, *, batch: int = 1024, pause: float = 0.0) -> Iterator[TFCluster]:
    with TFCluster.run(
        spark,
        count,
        {"batch": batch, "folder": str(folder), "pause": pause},
        roles=Roles(worker=2),
        input_mode=InputMode.SPARK,
        reservation_timeout=120.0,
        preload=(),
        progress=False,
    ) as cluster:
        yield cluster


def taken(folder: Path, number: int = 1) -> tuple[int, int]:
    """Rows and their sum, over both workers."""
    rows = total = 0
    for worker in range(2):
        path = folder / f"{number}-{worker}"
        eventually(path.exists, f"worker:{worker} to end", 2 * DEADLINE)
        counted = path.read_text().split()
        rows, total = rows + int(counted[0]), total + int(counted[1])
    return rows, total


class Peaks:
    """The largest resident set of each member's process and of each of Spark's Python workers,
    seen while it is entered."""

    def __init__(self, run_id: str) -> None:
        self._members = [member_process_of(run_id, f"worker:{index}") for index in range(2)]
        self._before = {each.pid: each.memory_info().rss for each in self._members}
        self._most: dict[int, int] = {}
        self._first: dict[int, int] = dict(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            workers = [each for each in psutil.process_iter() if "pyspark.daemon" in command(each)]
            for process in (*self._members, *workers):
                try:
                    resident = process.memory_info().rss
                except psutil.Error:
                    continue
                self._first.setdefault(process.pid, resident)
                self._most[process.pid] = max(self._most.get(process.pid, 0), resident)

    @property
    def growth(self) -> int:
        """Of the one that grew most, in bytes."""
        assert self._most.keys() >= self._before.keys()
        return max(most - self._first[pid] for pid, most in self._most.items())


def test_ten_million_small_rows_go_through_and_nobody_grows(spark: Any, tmp_path: Path) -> None:
    rows = 10_000_000
    with fed(spark, tmp_path, batch=4096) as cluster, Peaks(cluster.run_id) as peaks:
        report = cluster.train(spark.range(0, rows, 1, 16))
        assert taken(tmp_path) == (rows, rows * (rows - 1) // 2)
    assert (report.rows, report.delivery) == (rows, "exactly once")
    assert peaks.growth < ROOM


def test_a_consumer_that_is_slower_than_spark_lets_nothing_pile_up(
    spark: Any, tmp_path: Path
) -> None:
    """F1: a gigabyte, taken in small sips."""
    frame = spark.range(0, 1024, 1, 8).selectExpr("id", "cast(repeat('x', 1048576) as binary) as x")
    with fed(spark, tmp_path, batch=8, pause=0.02) as cluster, Peaks(cluster.run_id) as peaks:
        cluster.train(frame)
        assert taken(tmp_path) == (1024, 1024 * 1023 // 2)
    assert peaks.growth < ROOM + 64 * MIB, "the queue of a worker may hold as much"


def test_a_thousand_partitions_are_as_good_as_one(spark: Any, tmp_path: Path) -> None:
    with fed(spark, tmp_path) as cluster:
        report = cluster.train(spark.range(0, 10_000, 1, 1000))
        assert taken(tmp_path) == (10_000, 10_000 * 9_999 // 2)
    assert report.delivery == "exactly once"


def test_a_row_of_two_hundred_megabytes_goes_through(spark: Any, tmp_path: Path) -> None:
    """More than a worker's queue may hold, and than Spark puts into one batch."""
    # Of the row itself: a constant would be folded into the plan, and its text.
    wide = "cast(repeat(cast(id as string), 209715200) as binary) as x"
    frame = spark.range(0, 2, 1, 1).selectExpr("id", wide)
    with fed(spark, tmp_path, batch=1) as cluster:
        assert cluster.train(frame).rows == 2
        assert taken(tmp_path) == (2, 1)
