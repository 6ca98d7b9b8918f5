"""The real TensorBoard, and what a user sees of it in a real browser while the training goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.spark.tensorboard import TensorBoard, TensorBoardUnavailable
from executor_agent.scalars import ScalarWriter
from tests.browser import Browser, browser

pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'tflease[tensorboard]'")
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
__all__ = ["browser"]  # the fixture

DEADLINE = 120.0
PREFIX = "/user/me/proxy/6006"
ROOT = Path(__file__).parents[3]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return value


def ask(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}", timeout=DEADLINE) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


@pytest.fixture(scope="module")
def board(mirror: Path) -> Iterator[TensorBoard]:
    said: list[str] = []
    board = TensorBoard(mirror, say=said.append, path_prefix=PREFIX)
    yield board
    board.close()
    assert said == []


@pytest.fixture(autouse=True)
def _may_stay(board: TensorBoard, long_lived: Any) -> None:
    assert board.pid is not None
    long_lived.allow_tree(board.pid)


def test_scalars_of_a_training_that_goes_on_are_served(board: TensorBoard, mirror: Path) -> None:
    """Behind a path prefix, from a file that grows and one that a restart adds to the same run."""
    writer = ScalarWriter(mirror / "worker-1" / "train")
    writer.write(1, {"loss": 3.0})
    tags = eventually(
        lambda: ask(board.url, "data/plugin/scalars/tags").get("worker-1/train"), "the run is there"
    )
    assert list(tags) == ["loss"]

    def steps() -> list[int]:
        query = "data/plugin/scalars/scalars?run=worker-1%2Ftrain&tag=loss"
        return [step for _, step, _ in ask(board.url, query)]

    writer.write(2, {"loss": 2.0})
    eventually(lambda: steps() == [1, 2], "the file has grown")
    again = ScalarWriter(mirror / "worker-1" / "train")
    again.write(3, {"loss": 1.0})
    eventually(lambda: steps() == [1, 2, 3], "the second file is read")
    writer.write(4, {"loss": 0.5})
    eventually(lambda: 4 in steps(), "the first one is still read beside it")


def test_a_browser_shows_scalars_of_a_training_that_goes_on(
    board: TensorBoard, mirror: Path, browser: Browser
) -> None:
    writer = ScalarWriter(mirror / "chief-0" / "train")
    writer.write(1, {"epoch_accuracy": 0.25})
    eventually(
        lambda: "chief-0/train" in ask(board.url, "data/plugin/scalars/tags"), "the run is there"
    )
    browser.open(f"{board.url}#timeseries")
    browser.wait_for("epoch_accuracy", "chief-0/train")
    browser.open("about:blank")
    writer.write(2, {"val_accuracy": 0.75})  # it still trains
    eventually(
        lambda: "val_accuracy" in ask(board.url, "data/plugin/scalars/tags")["chief-0/train"],
        "the new tag is there",
    )
    browser.open(f"{board.url}#timeseries")
    browser.wait_for("epoch_accuracy", "val_accuracy", "chief-0/train")


def test_a_port_that_is_taken_and_a_wrong_option_are_told(tmp_path: Path) -> None:
    with pytest.raises(TensorBoardUnavailable, match="--no_such_option"):
        TensorBoard(tmp_path, say=print, extra=["--no_such_option"])


DRIVER = """
import sys, time
from pathlib import Path
from coordinator.spark.tensorboard import TensorBoard
board = TensorBoard(Path(sys.argv[1]), say=print)
print(board.pid, flush=True)
time.sleep(600)
"""


def test_all_of_it_dies_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """O1. TensorBoard has a data server below it."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    assert driver.stdout is not None
    with driver.stdout:
        guard = psutil.Process(int(driver.stdout.readline()))
        tree = [guard, *guard.children(recursive=True)]
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(tree, timeout=DEADLINE)
        alive = [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
        assert not alive
