"""Restarts on Spark Connect, which tells the driver less of what its tasks do; the coordinator is a
daemon."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.core.model import Cause
from tests.conftest import LongLived
from tests.coordinator.spark.daemon_process import Daemon
from tests.spark.application import CALL_TIMEOUT
from tests.spark.helpers import wait_until_gone
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    executor_of,
    history,
    left_of,
    process_of,
    spark_worker_of,
    wait_at_the_gate,
    wait_for_generation,
)

pytestmark = pytest.mark.timeout(300)

KILLED = Cause.KILLED_BY_SIGNAL.value
PREEMPTED = Cause.PREEMPTED.value

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def remote(long_lived: LongLived) -> Iterator[Call]:
    """``remote(function, *args)`` calls ``function(spark, *args)`` in a process of its own, whose
    session is of Spark Connect; the server is below it."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _connect)
    tree: list[psutil.Process] = []
    try:
        driver = psutil.Process(pool.submit(os.getpid).result(CALL_TIMEOUT))
        long_lived.allow_tree(driver.pid)
        try:
            yield lambda function, *args: pool.submit(_call, function, args).result(CALL_TIMEOUT)
            tree = driver.children(recursive=True)
            pool.submit(_stop).result(CALL_TIMEOUT)
        except BaseException:
            with suppress(psutil.NoSuchProcess):  # it may be what the error is about
                tree = driver.children(recursive=True)
                driver.kill()
            raise
    finally:
        pool.shutdown()
        for each in tree:  # a server that was left alone goes on
            with suppress(psutil.NoSuchProcess):
                each.kill()
        wait_until_gone(tree, "survived its driver")


_sessions: list[Any] = []


def _connect() -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_TESTING"] = "1"  # the server takes any free port
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.remote("local-cluster[2,2,1024]")
    # Whoever loses a task gets no other one from Spark: only another job brings him back.
    _sessions.append(builder.config("spark.task.maxFailures", "1").getOrCreate())


def _call(function: Call, args: tuple[Any, ...]) -> Any:
    return function(_sessions[0], *args)


def _stop() -> None:
    import pyspark

    spark = _sessions.pop()
    application = spark.conf.get("spark.app.id")
    spark.stop()
    shutil.rmtree(Path(pyspark.__file__).parent / "work" / application, ignore_errors=True)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path)) as daemon:
        yield daemon


def lose(spark: Any, folder: Path, url: str, token_file: Path, whats: list[str]) -> dict[str, Any]:
    """In the driver: of worker 1 is killed what is named, one in each generation."""
    find = {"process": process_of, "task": spark_worker_of, "executor": executor_of}
    options = {"coordinator": url, "token_file": token_file}
    with begin(spark, wait_at_the_gate, folder, **options) as cluster:
        tasks = [spark_worker_of(cluster, "worker:1").pid]
        for generation, what in enumerate(whats, 1):
            find[what](cluster, "worker:1").kill()
            wait_for_generation(cluster, generation + 1)
            tasks.append(spark_worker_of(cluster, "worker:1").pid)
        (folder / GATE).touch()
        returned = dict(cluster.wait(60).returned)
        cluster.shutdown()
        return {
            "returned": returned,
            "history": history(cluster),
            "in_place": [before == after for before, after in itertools.pairwise(tasks)],
            "left": left_of(cluster),
        }


def test_a_process_comes_back_in_place_and_a_lost_task_by_a_new_job(
    remote: Call, daemon: Daemon, tmp_path: Path
) -> None:
    """E2, O1"""
    outcome = remote(lose, tmp_path, daemon.url, daemon.token_file, ["process", "task", "process"])
    assert outcome == {
        "returned": {"worker:0": 4, "worker:1": 4},
        "history": [("worker:1", KILLED, 1), ("worker:1", PREEMPTED, 2), ("worker:1", KILLED, 3)],
        "in_place": [True, False, True],
        "left": [],
    }


def test_a_member_whose_executor_is_killed_comes_back_by_a_new_job(
    remote: Call, daemon: Daemon, tmp_path: Path
) -> None:
    """O3: members of one executor may all be on it, so that any of them may be blamed."""
    outcome = remote(lose, tmp_path, daemon.url, daemon.token_file, ["executor"])
    assert outcome["returned"] == {"worker:0": 2, "worker:1": 2}
    assert [(cause, generation) for _, cause, generation in outcome["history"]] == [(PREEMPTED, 1)]
    assert outcome["left"] == []
