"""A Spark job of one plain Python task, without tflease: what others start their processes from.

For figures that compare with it. It must not know what the task does, but for
`kill_stand_ins.launch`, which it calls.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import kill_stand_ins
from benchmarks.kill_stand_ins import NOTHING
from benchmarks.stopwatch import Process

if TYPE_CHECKING:
    import pyarrow as pa

_TIMEOUT = 60.0
_ROOT = str(Path(__file__).parents[1])


@dataclass(frozen=True, slots=True)
class Task:
    """A Spark task that runs. ``worker``: its Python worker; ``launched``: by the names of
    `kill_stand_ins.PROCESSES`; ``tag``: of its job."""

    worker: Process
    launched: dict[str, Process]
    tag: str


@contextmanager
def running(spark: Any, way: str, facts: Path) -> Iterator[Task]:
    """At the end the job is cancelled and its thread gone. What the task has launched is the
    caller's to end, and has to be: Spark waits for a forked child that holds its connection."""
    from pyspark import InheritableThread

    tag = f"plain-{facts.stem}"
    thread = InheritableThread(target=_run, args=(spark, _task(way, facts, tag), tag))
    thread.daemon = True
    thread.start()
    try:
        yield _found(way, facts, tag, thread.is_alive)
    finally:
        spark.sparkContext.cancelJobsWithTag(tag)
        thread.join(_TIMEOUT)
    if thread.is_alive():
        raise TimeoutError(f"the job of {way!r} has not ended {_TIMEOUT:g} s after its cancel")


def _run(spark: Any, task: Callable[..., Any], tag: str) -> None:
    spark.sparkContext.addJobTag(tag)
    with suppress(Exception):  # it is killed or cancelled
        spark.range(0, 1, 1, 1).mapInArrow(task, "id long").collect()


def _task(way: str, facts: Path, token: str) -> Callable[..., Any]:
    root = _ROOT

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Inside, because only such a function travels by value."""
        import sys

        sys.path.insert(0, root)  # local-cluster's executors see our files
        from benchmarks import kill_stand_ins

        kill_stand_ins.launch(way, facts, token)
        yield from batches

    return task


def _found(way: str, facts: Path, tag: str, is_alive: Callable[[], bool]) -> Task:
    file = kill_stand_ins.task_file(facts)
    _wait_for(file, is_alive)
    worker = Process.now(json.loads(file.read_text()))
    return Task(worker, {} if way == NOTHING else launched(facts, is_alive), tag)


def launched(facts: Path, is_alive: Callable[[], bool] = lambda: True) -> dict[str, Process]:
    """By name, once the member has told. Raises TimeoutError."""
    _wait_for(facts, is_alive)
    pids: dict[str, int] = json.loads(facts.read_text())
    return {name: Process.now(pid) for name, pid in pids.items()}


def _wait_for(path: Path, is_alive: Callable[[], bool]) -> None:
    """Raises TimeoutError, and at once when nobody is left who would write it."""
    deadline = time.monotonic() + _TIMEOUT
    while not path.exists():
        if time.monotonic() > deadline or not is_alive():
            raise TimeoutError(f"{path} was not written: see the executor's stderr")
        time.sleep(0.02)
