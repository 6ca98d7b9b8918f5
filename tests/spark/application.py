"""A Spark application in a process of its own: a Python process has one SparkContext at a time, and
that of the tests is taken by the shared cluster.

What a test calls there is sent by name, as to any process pool: a function of its module.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.spark.helpers import DEADLINE, eventually, wait_until_gone

CALL_TIMEOUT = 2 * DEADLINE
"""Seconds for one call; it only bounds a test that fails."""

_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.driver.extraJavaOptions": "-Dlog4j2.level=ERROR",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "512m",
    # A standalone worker starts executors in folders of its own.
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[2]),
}


class Application:
    """``call`` and ``start`` run ``function(spark, *args)`` on the application's driver."""

    def __init__(self, pool: ProcessPoolExecutor, pid: int) -> None:
        self._pool = pool
        self.pid = pid

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returned; raises what it raised."""
        return self.start(function, *args).result(CALL_TIMEOUT)

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """The same beside the test, which looks on."""
        return self._pool.submit(_call, function, args)


@contextmanager
def application(
    master: str, conf: Mapping[str, str] | None = None, executors: int = 0
) -> Iterator[Application]:
    """Entered once so many executors have registered. On leaving the session is stopped and the
    driver is gone, its JVM included. After an error it is not asked: whatever it was doing, it is
    killed."""
    spawn = multiprocessing.get_context("spawn")  # a fork would take this process's session along
    pool = ProcessPoolExecutor(1, spawn, _start, (master, {**_SETTINGS, **(conf or {})}))
    tree: list[psutil.Process] = []
    try:
        driver = psutil.Process(pool.submit(os.getpid).result(CALL_TIMEOUT))
        try:
            driving = Application(pool, driver.pid)
            driving.call(_wait_for_executors, executors)
            yield driving
            tree = driver.children(recursive=True)
            pool.submit(_stop).result(CALL_TIMEOUT)
        except BaseException:
            with suppress(psutil.NoSuchProcess):  # it may be what the error is about
                tree = driver.children(recursive=True)
                driver.kill()
            raise
    finally:
        pool.shutdown()
        wait_until_gone(tree, "survived its driver")


# -- in the application's process ------------------------------------------------------------------

_sessions: list[Any] = []


def _start(master: str, conf: Mapping[str, str]) -> None:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("tflease")
    for key, value in conf.items():
        builder = builder.config(key, value)
    _sessions.append(builder.getOrCreate())


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(_sessions[0], *args)


def executors_of(spark: Any) -> int:
    """How many executors the application has now."""
    return len(spark.sparkContext.statusTracker().getExecutorInfos()) - 1  # the driver is one


def _wait_for_executors(spark: Any, count: int) -> None:
    eventually(lambda: executors_of(spark) >= count, f"{count} executors to register")


def _stop() -> None:
    import pyspark

    spark = _sessions.pop()
    application_id = spark.sparkContext.applicationId
    spark.stop()
    # Where local-cluster writes; a standalone cluster has a place of its own.
    shutil.rmtree(Path(pyspark.__file__).parent / "work" / application_id, ignore_errors=True)
