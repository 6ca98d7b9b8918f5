"""Spark on threads of this process' JVM: enough for what runs in a task, and quick to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def local_spark(cores: int = 2) -> Iterator[Any]:
    """A SparkSession, stopped at the end."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    assert SparkContext._active_spark_context is None  # another test's, which we would stop
    session = (
        SparkSession.builder.master(f"local[{cores}]")
        .appName("tflease")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "OFF")
        .config("spark.driver.extraJavaOptions", "-Dlog4j2.level=OFF")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()
