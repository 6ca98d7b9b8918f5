"""What the driver may do at any time: Ctrl-C, die, stop its session. Nothing is left (R7, O13).

Each test starts a driver of its own, on `local[4]`: it is up in seconds, and members then hang
below the driver's own JVM, which is a layout of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.spark.helpers import DEADLINE, command, eventually, marked, wait_until_gone

DRIVER = Path(__file__).parents[1] / "programs" / "driver.py"
ROOT = Path(__file__).parents[3]


class Driver:
    """A driver process under test, in a process group of its own, as a terminal would have it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(folder), *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def reached(self, mark: str) -> str:
        """Waits until the driver has come so far; what it said of it."""
        path = self._folder / mark

        def found() -> str | None:
            assert self.process.poll() is None or path.exists(), self.output()
            return (path.read_text() or "yes") if path.exists() else None

        return str(eventually(found, f"the driver to reach {mark!r}", 2 * DEADLINE))

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self, run_id: str) -> list[psutil.Process]:
        """Everything that must be gone soon: the driver's tree and the run's members."""
        tree = psutil.Process(self.process.pid).children(recursive=True)
        return list({*tree, *marked(run_id)})

    def wait(self) -> int:
        return self.process.wait(2 * DEADLINE)

    def output(self) -> str:
        self._log.flush()
        return (self._folder / "log").read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def start_one(*arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, *arguments))
        return drivers[-1]

    yield start_one
    for driver in drivers:
        driver.close()


@pytest.mark.parametrize("where", ["forming", "running", "waiting", "stopping"])
def test_ctrl_c_ends_a_run_in_any_phase_and_leaves_nothing(
    start: Callable[..., Driver], where: str
) -> None:
    driver = start(where)
    run_id = driver.reached(where)
    processes = driver.processes(run_id)
    driver.interrupt()
    assert driver.wait() == 0, driver.output()
    wait_until_gone(processes, "survived Ctrl-C")
    assert "KeyboardInterrupt was caught; members left: 0" in driver.output(), driver.output()


def test_a_sigkilled_driver_leaves_nothing(start: Callable[..., Driver]) -> None:
    """O13: the coordinator goes with it, and stops the members first."""
    driver = start("waiting")
    processes = driver.processes(driver.reached("waiting"))
    assert any("coordinator.embedded" in command(process) for process in processes)
    driver.process.kill()
    driver.wait()
    wait_until_gone(processes, "survived the driver")


def test_stopping_the_session_under_a_run_ends_it_with_an_error(
    start: Callable[..., Driver],
) -> None:
    driver = start("stop-session")
    processes = driver.processes(driver.reached("stop-session"))
    assert driver.wait() == 0, driver.output()
    wait_until_gone(processes, "survived the session")
    assert "the run failed: TrainingFailed" in driver.output()


def test_a_driver_that_just_ends_leaves_nothing(start: Callable[..., Driver]) -> None:
    """No context manager, no shutdown: the script is over."""
    driver = start("forget")
    processes = driver.processes(driver.reached("forget"))
    assert driver.wait() == 0, driver.output()
    wait_until_gone(processes, "survived the end of the driver")
