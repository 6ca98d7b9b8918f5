"""Spark Connect: the driver's JVM is a server, and the coordinator a daemon."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.model import RunPhase
from tests.coordinator.certificates import daemon_files
from tests.coordinator.spark.daemon_process import Daemon
from tests.spark.helpers import DEADLINE, marked, wait_until_gone
from tests.spark.program import Program

pytestmark = pytest.mark.timeout(600)


def test_runs_on_spark_connect_succeed_fail_and_can_be_stopped(tmp_path: Path) -> None:
    """One server for all: its start takes longest. The daemon speaks mutual TLS."""
    files = daemon_files(tmp_path)
    with (
        closing(Daemon(tmp_path, files)) as daemon,
        closing(
            Program(
                "connect_driver.py", tmp_path, daemon.url, str(daemon.token_file),
                *map(str, files.client.values()),
            )
        ) as driver,
    ):  # fmt: skip
        driver.reached("seen", 5 * DEADLINE)
        processes = driver.processes()
        try:
            code = driver.process.wait(5 * DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver does not end:\n{driver.output()}")
        assert code == 0, driver.output()
        with closing(daemon.client()) as client:
            runs = client.list()
        wait_until_gone(processes, "survived the driver")
        assert not any(marked(run.run_id) for run in runs)
    assert [run.phase for run in runs] == [
        RunPhase.SUCCEEDED,
        RunPhase.SUCCEEDED,
        RunPhase.FAILED,
        RunPhase.CANCELLED,
    ]
    seen = json.loads((tmp_path / "seen").read_text())
    assert "tflease serve" in seen["without a daemon"]
    assert seen["success"] == {"worker:0": "worker:0 hello", "worker:1": "worker:1 hello"}
    assert seen["fed"] == [2000, "exactly once", 2 * sum(range(1000))]
    assert "raised ValueError: bad labels" in seen["failure"]
    assert "Traceback" in seen["failure"]
    assert seen["running"] is True
    assert "enough" in seen["cancelled"]
    assert seen["slots"] == 4
