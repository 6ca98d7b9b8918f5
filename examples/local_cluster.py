"""A real Spark cluster on this machine: each executor is a Java process of its own.

For the demo, the benchmarks and the tests. On your own cluster you have a session already.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def local_cluster(
    executors: int = 2,
    cores: int = 2,
    memory_mib: int = 1024,
    conf: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """A SparkSession on ``local-cluster``; stopped, and its files removed, at the end."""
    # Executors otherwise run the `python3` of their PATH, which lacks what we need.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    import pyspark
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master(f"local-cluster[{executors},{cores},{memory_mib}]")
        .appName("tflease")
        .config("spark.executor.memory", f"{memory_mib}m")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")  # it would overwrite our progress line
        .config("spark.log.level", "ERROR")
        .config("spark.driver.extraJavaOptions", "-Dlog4j2.level=ERROR")
    )
    for key, value in (conf or {}).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    application = spark.sparkContext.applicationId
    try:
        yield spark
    finally:
        with suppress(Exception):  # a test may have killed the JVM below it
            spark.stop()
        work = Path(pyspark.__file__).parent / "work"  # where local-cluster writes
        shutil.rmtree(work / application, ignore_errors=True)
