"""TensorBoard's start, address, death and end, with a program that behaves as it does. The real
one: tests/spark/topologies/test_tensorboard.py."""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.core.errors import FeatureUnavailable, InvalidRun, RunOver
from coordinator.spark import tensorboard
from coordinator.spark.beside import Beside
from coordinator.spark.tensorboard import TensorBoard, TensorBoardUnavailable

pytestmark = pytest.mark.slow
PROGRAM = (sys.executable, str(Path(__file__).with_name("fake_tensorboard.py")))
SLEEPS = "import time; time.sleep(600)"
DEADLINE = 30.0

Start = Callable[..., TensorBoard]


def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return bytes(answer.read()).decode()


def child_of(board: TensorBoard) -> psutil.Process:
    """Below the guard."""
    (child,) = psutil.Process(board.pid).children()
    return child


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, said: list[str]) -> Iterator[Start]:
    started: list[TensorBoard] = []

    def start_board(**arguments: Any) -> TensorBoard:
        board = TensorBoard(tmp_path, say=said.append, program=PROGRAM, **arguments)
        started.append(board)
        return board

    yield start_board
    for board in started:
        board.close()


def test_it_answers_at_its_url_with_what_was_asked_for(start: Start, tmp_path: Path) -> None:
    board = start(path_prefix="proxy/6006/", reload_interval=0.5, extra=["--window_title", "mine"])
    assert board.url.startswith("http://localhost:")
    assert board.url.endswith("/proxy/6006/")
    command = read(board.url)
    assert f"--logdir {tmp_path} --host localhost --reload_interval 0.5" in command
    assert "--window_title mine" in command


def test_close_leaves_nothing(start: Start, said: list[str]) -> None:
    board = start()
    processes = [psutil.Process(board.pid), *psutil.Process(board.pid).children(recursive=True)]
    assert len(processes) == 3  # the guard, it, its helper
    board.close()
    board.close()
    assert not [each for each in processes if each.is_running()]
    assert not board.is_alive
    assert said == []


def test_one_that_dies_is_started_again_at_its_address_once(start: Start, said: list[str]) -> None:
    board = start()
    url, first = board.url, child_of(board)
    first.kill()
    eventually(lambda: said, "its death is told")
    assert said == [f"TensorBoard died (it was ended by SIGKILL); starting it again at {url}"]

    def answers() -> bool:
        try:
            return bool(read(url))
        except OSError:
            return False

    eventually(answers, "it answers again")
    assert board.url == url
    child_of(board).kill()
    eventually(lambda: len(said) == 2, "its second death is told")
    assert "it was ended by SIGKILL" in said[1]
    assert not board.is_alive


def test_a_guard_that_is_killed_takes_it_along(start: Start, said: list[str]) -> None:
    board = start()
    below = psutil.Process(board.pid).children(recursive=True)
    psutil.Process(board.pid).kill()
    _, alive = psutil.wait_procs(below, timeout=DEADLINE)
    assert not alive
    eventually(lambda: said, "its death is told")


def test_a_taken_port_is_said_at_once(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TensorBoardUnavailable, match=f"127.0.0.1:{port}.*in use"):
            start(host="127.0.0.1", port=port)


def test_a_host_of_somebody_else_is_said_at_once(start: Start) -> None:
    with pytest.raises(TensorBoardUnavailable, match=r"cannot listen on 192\.0\.2\.1"):
        start(host="192.0.2.1")


def test_one_that_does_not_start_tells_the_end_of_its_output(start: Start) -> None:
    with pytest.raises(TensorBoardUnavailable, match=r"exit code 1(.|\n)*no such thing as --break"):
        start(extra=["--break"])


def test_one_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "START_TIMEOUT", 0.5)
    with pytest.raises(TensorBoardUnavailable, match=r"did not answer within 0.5 s"):
        TensorBoard(tmp_path, say=print, program=(sys.executable, "-c", SLEEPS))


@pytest.mark.parametrize("arguments", [{"port": 70000}, {"path_prefix": "a b"}])
def test_arguments_are_checked(start: Start, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRun):
        start(**arguments)


def test_a_missing_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FeatureUnavailable, match=r"tflease\[tensorboard\]"):
        TensorBoard(tmp_path, say=print)


# --- as a part of the cluster ---------------------------------------------------------------------


def beside(mirror: Path | None, said: list[str]) -> Beside:
    return Beside(
        mirror=lambda: mirror, model_dir=None, is_training_over=lambda: False, say=said.append
    )


def test_the_cluster_starts_one_and_ends_it(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TensorBoard.__init__.__kwdefaults__, "program", PROGRAM)
    cluster = beside(tmp_path, said)
    assert cluster.tensorboard_url() is None
    url = cluster.start_tensorboard()
    assert said == [f"TensorBoard: {url}"]
    assert cluster.start_tensorboard() == cluster.tensorboard_url() == url
    assert said == [f"TensorBoard: {url}"]
    cluster._end_beside()
    cluster._end_beside()
    assert cluster.tensorboard_url() is None
    with pytest.raises(RunOver):
        cluster.start_tensorboard()


def test_a_notebook_shows_a_link(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    class Display:
        def show(self, content: str, text: str) -> None:
            shown.append((content, text))

    monkeypatch.setattr(tensorboard.notebook, "is_running", lambda: True)
    monkeypatch.setattr(tensorboard.notebook, "Display", Display)
    tensorboard.announce("http://localhost:1/a/", said.append)
    ((content, text),) = shown
    assert '<a href="http://localhost:1/a/" target="_blank"' in content
    assert text == "TensorBoard: http://localhost:1/a/"
    assert said == []


def test_a_run_without_event_files_says_what_to_pass(said: list[str]) -> None:
    with pytest.raises(InvalidRun, match="log_dir"):
        beside(None, said).start_tensorboard()


def test_an_interval_that_makes_no_sense_is_refused(tmp_path: Path, said: list[str]) -> None:
    for interval in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidRun, match="reload_interval"):
            beside(tmp_path, said).start_tensorboard(reload_interval=interval)
