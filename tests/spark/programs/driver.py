"""A driver for test_driver.py: driver.py FOLDER WHERE. Writes FOLDER/WHERE when it is there."""

import os
import sys
import time
from pathlib import Path

os.environ["PYSPARK_PYTHON"] = sys.executable

from pyspark.sql import SparkSession

from coordinator import Roles, TFCluster, TrainingFailed
from tests.spark.helpers import marked

folder, where = Path(sys.argv[1]), sys.argv[2]


def wait_for_the_end(args, ctx):
    ctx.wait_for_stop()
    if args == "stopping":
        time.sleep(1000)  # takes all the time it is given


def reached(cluster):
    (folder / ".new").write_text(str(cluster.run_id))
    (folder / ".new").rename(folder / where)


def see(run):
    """The progress callback: knows the run before `TFCluster.run` has returned."""
    seen["run_id"] = run.run_id
    if where == "forming" and any(member.phase.value == "ready" for member in run.members):
        reached(run)
    if where == "stopping" and run.phase.value == "stopping":
        reached(run)


spark = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
seen = {"run_id": ""}
# While the gang is to be seen forming, one member never gets ready.
preload = ("tests.spark.programs.never_ready",) if where == "forming" else ()


def train():
    with TFCluster.run(
        spark,
        wait_for_the_end,
        where,
        roles=Roles(worker=2, ps=1),
        preload=preload,
        progress=see,
        grace={"worker": 300.0 if where == "stopping" else 5.0},
    ) as cluster:
        if where == "running":
            reached(cluster)
            time.sleep(1000)
        if where == "stop-session":
            reached(cluster)
            spark.stop()
        if where == "waiting":
            reached(cluster)
        if where == "stopping":
            cluster.shutdown()
        cluster.wait()


if where == "forget":
    forgotten = TFCluster.run(
        spark, wait_for_the_end, roles=Roles(worker=2), preload=(), progress=see
    )
    reached(forgotten)
    sys.exit(0)

try:
    train()
except KeyboardInterrupt:
    print("KeyboardInterrupt was caught; members left:", len(marked(seen["run_id"])))
except TrainingFailed as error:
    print(f"the run failed: TrainingFailed: {error}")
if where != "stop-session":
    spark.stop()
