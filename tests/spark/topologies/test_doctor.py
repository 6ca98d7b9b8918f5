"""`tflease doctor --spark`: what it sees of real executors, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.check import Check, Status
from coordinator.core.errors import InvalidRun
from coordinator.spark.examination import Examination, examine
from executor_agent.core.supervision import MARKER_VARIABLE
from executor_agent.traces import marker_of
from tests.coordinator.spark.daemon_process import Daemon
from tests.spark.helpers import DEADLINE, eventually

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(300)


def lines(found: Examination) -> dict[str, Check]:
    return {each.name: each for each in found.checks}


@pytest.fixture
def orphan() -> Iterator[str]:
    """O14: what a member of an earlier run has left; the run."""
    run = uuid.uuid4().hex
    marker = f"{run}/worker:0/a"
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER_VARIABLE: marker})
    try:
        eventually(lambda: marker_of(process.pid) == marker, "the program to run")
        yield run
    finally:
        process.kill()
        process.wait()


def test_executors_of_a_session_are_looked_at_from_a_notebook(
    spark: Any, slots: int, orphan: str, tmp_path: Path
) -> None:
    with closing(Daemon(tmp_path)) as daemon:
        found = examine(spark, coordinator=daemon.url, ports="47000-47099")
    by_name = lines(found)
    assert found.is_good, str(found)
    assert f"{slots} (" in by_name["task slots"].found
    assert f"2 executors on 1 host looked at, by {slots} tasks" in by_name["executors"].found
    assert "can be imported" in by_name["tensorflow there"].found
    assert daemon.address in by_name["way to coordinator"].found
    assert 47000 <= int(by_name["members' ports"].found.rpartition(":")[2]) <= 47099
    assert by_name["way from driver"].status is Status.OK
    left = by_name["left behind"]
    assert left.status is Status.NOTE
    assert f"worker:0 of run {orphan}" in left.found
    assert "tflease reap" in left.advice
    assert not spark.sparkContext.statusTracker().getActiveJobsIds()


def test_executors_that_reach_nobody_fail_by_name(spark: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
    found = examine(spark, coordinator=f"grpc://{nobody}", network="192.0.2.192/30")
    by_name = lines(found)
    assert not found.is_good
    assert "Connection refused" in by_name["way to coordinator"].found
    assert "has no address in 192.0.2.192/30" in by_name["members' ports"].found
    assert "->" in str(found)


def test_a_job_that_gets_no_slot_ends_at_its_deadline(spark: Any, slots: int, gate: Path) -> None:
    """R1: whoever has the slots is named as such, and no task is left."""

    def wait_for(path: str, rows: Any) -> Any:
        import time

        while not os.path.exists(path):
            time.sleep(0.05)
        return rows

    rdd = spark.sparkContext.parallelize(range(slots), slots)
    path = str(gate)
    busy = threading.Thread(
        target=lambda: rdd.mapPartitions(lambda rows: wait_for(path, rows)).count()
    )
    busy.start()
    try:
        tracker = spark.sparkContext.statusTracker()
        eventually(
            lambda: sum(each.numRunningTasks for each in tracker.getExecutorInfos()) == slots,
            "all slots to be busy",
        )
        found = examine(spark, timeout=1.0)
    finally:
        gate.touch()
        busy.join(DEADLINE)
    failed = lines(found)["executors"]
    assert failed.status is Status.FAILED
    assert "has not ended within 1 s" in failed.found
    assert f"{slots} of {slots} slots are busy" in failed.found


def test_arguments_that_make_no_sense_are_refused(spark: Any) -> None:
    with pytest.raises(InvalidRun, match="ports"):
        examine(spark, ports="1-2")


def test_the_command_starts_a_session_and_ends_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "doctor", "--spark", "local[1]", "--json"],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    found = json.loads(done.stdout)
    names = [each["name"] for each in found["checks"]]
    assert "executors" in names, done.stdout
    assert {"name", "status", "found", "advice"} == found["checks"][0].keys()
    assert done.returncode == (0 if found["ok"] else 1)


def test_a_master_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        master = f"spark://127.0.0.1:{gone.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "doctor", "--spark", master],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert f"{master} cannot be reached (127.0.0.1:" in done.stdout
