"""A Spark session of our own, for commands: users bring theirs to ``TFCluster.run``."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from coordinator.core.errors import SparkUnusable
from coordinator.spark.jobs import explain

_CONNECT_TIMEOUT = 5.0
_WITH_PORT = ("spark", "sc")


@contextmanager
def open_session(master: str) -> Iterator[Any]:
    """A session of our own: a master's URL, or "sc://..." of a Spark Connect server. Stopped at the
    end. Raises SparkUnusable."""
    _check_listens(master)
    try:
        from pyspark.sql import SparkSession

        builder: Any = SparkSession.builder.appName("tflease doctor")
        if master.startswith("sc://"):
            spark = builder.remote(master).getOrCreate()
        else:
            spark = (
                builder.master(master)
                .config("spark.ui.enabled", "false")
                .config("spark.ui.showConsoleProgress", "false")  # it would write into our lines
                .config("spark.log.level", "ERROR")
                .getOrCreate()
            )
    except Exception as error:  # pyspark's, py4j's, grpc's, or that there is none
        raise SparkUnusable(f"no session with {master}: {explain(error)}") from error
    try:
        yield spark
    finally:
        with suppress(Exception):  # it may be gone already
            spark.stop()


def _check_listens(master: str) -> None:
    """Spark itself gives a standalone master a minute, and then says something else. Raises
    SparkUnusable when none of those that are named can be reached."""
    scheme, _, rest = master.partition("://")
    problems = []
    for each in rest.split("/")[0].split(",") if scheme in _WITH_PORT else ():
        host, _, port = each.rpartition(":")
        if not host or not port.isdecimal():
            return  # Spark knows a default, or what to say
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
        except OSError as error:
            problems.append(f"{each}: {error.strerror or error}")
        else:
            return
    if problems:
        raise SparkUnusable(f"{master} cannot be reached ({'; '.join(problems)})")
