"""A driver for test_daemon.py: owner.py FOLDER COORDINATOR TOKEN_FILE. Writes FOLDER/running when
its run is, and then sits there."""

import os
import sys
import time
from pathlib import Path

os.environ["PYSPARK_PYTHON"] = sys.executable

from pyspark.sql import SparkSession

from coordinator import Roles, TFCluster

folder, coordinator, token_file = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


def wait_for_the_end(args, ctx):
    ctx.wait_for_stop()


spark = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false").getOrCreate()
cluster = TFCluster.run(
    spark,
    wait_for_the_end,
    roles=Roles(worker=2, ps=1),
    preload=(),
    progress=False,
    coordinator=coordinator,
    token_file=token_file,
    owner_timeout=3.0,
)
(folder / ".new").write_text(cluster.run_id)
(folder / ".new").rename(folder / "running")
time.sleep(1000)
