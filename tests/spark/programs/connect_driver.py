"""A driver on Spark Connect for test_connect.py:
connect_driver.py FOLDER COORDINATOR TOKEN_FILE CA_FILE CERT_FILE KEY_FILE.

Its server is in the same process tree: PySpark starts one for a "remote" master.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_TESTING"] = "1"  # the server takes any free port

import pyspark
from pyspark.sql import SparkSession

from coordinator import (
    FeatureUnavailable,
    InputMode,
    Roles,
    RunCancelled,
    TFCluster,
    TrainingFailed,
)
from coordinator.core.model import MemberId
from tests.spark.helpers import eventually

folder = Path(sys.argv[1])
NAMES = ("coordinator", "token_file", "ca_file", "cert_file", "key_file")
where = dict(zip(NAMES, sys.argv[2:], strict=True))
seen = {}


def whoami(args, ctx):
    return f"{ctx.job_name}:{ctx.task_index} {args}"


def fail(args, ctx):
    raise ValueError("bad labels")


def wait_for_the_end(args, ctx):
    ctx.wait_for_stop()


def run(main_fun, args=None, **more):
    options = {"roles": Roles(worker=2), "preload": (), "progress": False, **where, **more}
    return TFCluster.run(spark, main_fun, args, reservation_timeout=120.0, **options)


def see(name, happened):
    seen[name] = happened
    (folder / ".new").write_text(json.dumps(seen))
    (folder / ".new").rename(folder / "seen")


def without_a_daemon():
    try:
        run(whoami, **dict.fromkeys(NAMES))
    except FeatureUnavailable as error:
        see("without a daemon", str(error))


def success():
    with run(whoami, "hello") as cluster:
        see("success", dict(cluster.wait(120).returned))


def add_up(args, ctx):
    return sum(int(batch["id"].sum()) for batch in ctx.feed_batches(10, equal_steps=False))


def fed():
    with run(add_up, input_mode=InputMode.SPARK) as cluster:
        report = cluster.train(spark.range(0, 1000, 1, 5), num_epochs=2)
        told = cluster.wait(120).returned.values()
        see("fed", [report.rows, report.delivery, sum(told)])


def failure():
    try:
        with run(fail) as cluster:
            cluster.wait(120)
    except TrainingFailed as error:
        see("failure", str(error))


def cancelled():
    try:
        with run(wait_for_the_end) as cluster:
            jobs, member = cluster._launch.jobs, MemberId.parse("worker:0")
            see("running", eventually(lambda: jobs.running(member), "Spark to tell of a task"))
            cluster.stop("enough")
            cluster.wait(120)
    except RunCancelled as error:
        see("cancelled", str(error))


def one_slot_left():
    """Counts on all slots at once: it would hang if a cancelled run still held one."""
    rows = spark.range(0, 4, 1, 4).mapInArrow(lambda batches: batches, "id long").collect()
    see("slots", len(rows))


spark = SparkSession.builder.remote("local-cluster[2,2,1024]").getOrCreate()
application = spark.conf.get("spark.app.id")
try:
    for step in (without_a_daemon, success, fed, failure, cancelled, one_slot_left):
        step()
finally:
    spark.stop()
    work = Path(pyspark.__file__).parent / "work"  # where local-cluster writes
    shutil.rmtree(work / application, ignore_errors=True)
