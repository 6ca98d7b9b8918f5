"""What runs beside the driver, as the driver sees it. How it dies: tests/agent/test_guard.py."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from coordinator.spark.side_process import SideProcess

pytestmark = pytest.mark.slow
DEADLINE = 30.0


def python(log: Path, code: str, grace: float = 3.0) -> SideProcess:
    return SideProcess([sys.executable, "-c", code], log, env={"WORD": "there"}, grace=grace)


def test_its_output_and_its_end_are_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of somebody before\n")
    process = python(tmp_path / "log", "import os, sys; print(os.environ['WORD']); sys.exit(3)")
    assert process.wait(DEADLINE) == 3
    assert process.output() == "there\n"
    assert not process.is_alive
    assert process.how_it_ended() == "it ended with exit code 3"
    process.stop()  # again


def test_stop_ends_who_does_not_listen_and_all_below(tmp_path: Path) -> None:
    tree = "import subprocess; subprocess.run('trap \"\" TERM; echo ready; sleep 600', shell=True)"
    process = python(tmp_path / "log", tree, grace=0.0)
    while "ready" not in process.output():
        assert process.is_alive
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    with pytest.raises(TimeoutError):
        process.wait(0.0)
    process.stop()
    assert process.how_it_ended() == "it was ended by SIGKILL"
    assert not [each for each in children if each.is_running()]


def test_stop_asks_first(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('bye'))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    process = python(tmp_path / "log", code, grace=DEADLINE)
    while "ready" not in process.output():
        assert process.is_alive
    process.stop()
    assert process.output() == "ready\nbye\n"


def test_a_killed_guard_is_told_as_such(tmp_path: Path) -> None:
    process = python(tmp_path / "log", "import time; time.sleep(600)")
    psutil.Process(process.pid).send_signal(signal.SIGKILL)
    assert process.wait(DEADLINE) == 128 + signal.SIGKILL
    assert process.how_it_ended() == "it was ended by SIGKILL"
