"""A run where the environment, as in many companies, sends everything through a proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # the discard port: whoever uses this proxy is refused

PROGRAM = """
from pyspark.sql import SparkSession

from coordinator import Roles, TFCluster


def main_fun(args, ctx):
    import os

    return os.environ["http_proxy"], os.environ["no_grpc_proxy"], ctx.cluster_spec["worker"][0]


spark = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false").getOrCreate()
with TFCluster.run(
    spark, main_fun, roles=Roles(worker=2), preload=(), progress=False, reservation_timeout=60.0
) as cluster:
    print(*cluster.wait()["worker:1"])
spark.stop()
"""


def test_a_proxy_in_the_environment_comes_between_nobody(tmp_path: Path) -> None:
    """Of driver and executors: neither the driver's calls nor the agents' go through it, and
    TensorFlow is told not to send its own there."""
    program = tmp_path / "driver.py"
    program.write_text(PROGRAM)
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy", "all_proxy")
    environment = {name: each for name, each in os.environ.items() if "no_proxy" not in name}
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**environment, **dict.fromkeys(names, NOWHERE), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    proxy, exceptions, address = done.stdout.split()
    assert proxy == NOWHERE
    assert exceptions == address.rpartition(":")[0]
