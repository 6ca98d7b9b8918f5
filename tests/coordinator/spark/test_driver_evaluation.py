"""The handle of an evaluation on the driver, with its real process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.core.errors import InvalidRun, PayloadNotPicklable, RunOver
from coordinator.spark import driver_evaluation
from coordinator.spark.beside import Beside
from coordinator.spark.driver_evaluation import DriverEvaluation, Evaluation, EvaluationFailed
from executor_agent.core import evaluation_files as files
from executor_agent.evaluation import OUTPUT_BYTES
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow
DEADLINE = 60.0
INDEX = bytes.fromhex("57fb808b247547db")  # as TensorFlow's tables end
GENERATION = "20260131T120000Z-4f1c0a9be3d2-0001"


class Run:
    """What a cluster knows of its run."""

    def __init__(self, folder: Path) -> None:
        self.model_dir = folder / "model"
        self.mirror = folder / "mirror"
        self.is_over = threading.Event()
        self.said: list[str] = []
        self.beside = Beside(
            mirror=lambda: self.mirror,
            model_dir=str(self.model_dir),
            is_training_over=self.is_over.is_set,
            say=self.said.append,
        )

    def save(self, step: int) -> Path:
        folder = self.model_dir / "checkpoints" / GENERATION
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"ckpt-{step}.data-00000-of-00001").write_text(str(step))
        (folder / f"ckpt-{step}.index").write_bytes(INDEX)
        return folder / f"ckpt-{step}"

    def evaluate(self, fn: Callable[..., Any], args: Any = None, **more: Any) -> DriverEvaluation:
        return self.beside.evaluate_on_driver(fn, args, every=0.01, **more)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.beside._end_beside()


def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def read_back(args: float, checkpoint: Any) -> dict[str, float]:
    with open(f"{checkpoint.path}.data-00000-of-00001") as file:
        return {"value": float(file.read()) * args}


def hang(args: Any, checkpoint: Any) -> None:
    """With a child in a session of its own."""
    import subprocess

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("hangs above", child.pid, flush=True)
    child.wait()


def test_results_come_during_the_training_and_the_last_after_it(run: Run) -> None:
    first = run.save(1)
    handle = run.evaluate(read_back, 10.0)
    eventually(handle.results, "the first result")
    with pytest.raises(TimeoutError):
        handle.wait(0.0)
    last = run.save(2)
    run.is_over.set()
    found = handle.wait(DEADLINE)
    assert [(each.step, each.path, dict(each.metrics)) for each in found] == [
        (1, str(first), {"value": 10.0}),
        (2, str(last), {"value": 20.0}),
    ]
    assert found == handle.results()
    assert isinstance(found[0], Evaluation)
    assert list((run.mirror / "evaluation").glob("events.out.tfevents.*"))
    assert not handle.is_running
    assert run.said == []


def test_no_gpu_is_seen_unless_it_is_wished_for(run: Run) -> None:
    run.save(1)
    run.is_over.set()

    def see(name: str, checkpoint: Any) -> dict[str, float]:
        return {os.environ["CUDA_VISIBLE_DEVICES"] or "none": 1.0}

    assert "none" in run.evaluate(see).wait(DEADLINE)[0].metrics
    wished = run.evaluate(see, env={"CUDA_VISIBLE_DEVICES": "3"}, name="another")
    assert "3" in wished.wait(DEADLINE)[0].metrics


def test_a_function_that_raises_ends_it_with_its_traceback(run: Run) -> None:
    run.save(1)

    def fail(args: Any, checkpoint: Any) -> None:
        raise ArithmeticError("no such number")

    handle = run.evaluate(fail)
    with pytest.raises(EvaluationFailed, match=r"ckpt-1 failed:(.|\n)*in fail(.|\n)*no such numb"):
        handle.wait(DEADLINE)
    assert run.said == ["evaluation failed: ArithmeticError: no such number"]


def test_a_process_that_is_killed_is_told_with_its_output(run: Run) -> None:
    """E.g. by the out-of-memory killer."""
    run.save(1)

    def die(args: Any, checkpoint: Any) -> None:
        print("nearly there", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EvaluationFailed, match=r"ended by SIGKILL(.|\n)*nearly there"):
        run.evaluate(die).wait(DEADLINE)


def test_one_that_takes_too_long_is_ended_with_all_below_it(run: Run) -> None:
    run.save(1)
    handle = run.evaluate(hang, timeout=0.5)
    with pytest.raises(EvaluationFailed, match=r"ckpt-1 took longer than 0.5 s"):
        handle.wait(DEADLINE)
    assert not psutil.pid_exists(handle.pid)


def test_a_process_that_hears_nothing_of_its_store_is_given_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that does not answer: here a pipe without a writer."""
    monkeypatch.setattr(driver_evaluation, "END_TIMEOUT", 0.5)
    path = run.save(1)
    index = Path(f"{path}.index")
    index.unlink()
    os.mkfifo(index)
    run.is_over.set()
    handle = run.evaluate(read_back, 1.0)
    with pytest.raises(EvaluationFailed, match=r"for 0.5 s its process has neither evaluated"):
        handle.wait(DEADLINE)
    assert not psutil.pid_exists(handle.pid)


def test_one_that_does_not_leave_is_killed_and_its_results_count(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_evaluation, "LEAVE_TIMEOUT", 0.2)
    run.save(1)
    run.is_over.set()

    def leave_a_thread(args: Any, checkpoint: Any) -> dict[str, float]:
        threading.Thread(target=time.sleep, args=(600,)).start()
        return {"value": 1.0}

    handle = run.evaluate(leave_a_thread)
    assert [dict(each.metrics) for each in handle.wait(DEADLINE)] == [{"value": 1.0}]
    assert "all is evaluated, and the process does not end" in run.said[0]
    assert not psutil.pid_exists(handle.pid)


def test_who_cannot_be_told_of_a_failure_holds_up_nobody(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(text: str) -> None:
        raise BrokenPipeError("nobody reads what the driver prints")

    monkeypatch.setattr(run.beside, "_say_beside", refuse)
    run.save(1)
    handle = run.evaluate(lambda args, checkpoint: 1 / 0)
    with pytest.raises(EvaluationFailed, match="ZeroDivisionError"):
        handle.wait(DEADLINE)
    assert not handle._directory.exists()


def test_what_it_prints_takes_a_bounded_part_of_the_disk(run: Run) -> None:
    run.save(1)

    def flood(args: Any, checkpoint: Any) -> None:
        for _ in range(3):
            sys.stdout.write("x" * OUTPUT_BYTES)
        print("end of it", flush=True)
        time.sleep(600)

    handle = run.evaluate(flood)
    eventually(lambda: handle.output().endswith("end of it\n"), "all is printed")
    output = handle._directory / files.OUTPUT
    eventually(lambda: output.stat().st_blocks * 512 < 2 * OUTPUT_BYTES, "some is given back")
    handle.stop()


@pytest.mark.parametrize("manner", ["stop", "shutdown", "guard"])
def test_nothing_is_left_whatever_ends_it(run: Run, manner: str) -> None:
    run.save(1)
    handle = run.evaluate(hang)
    eventually(lambda: "hangs above" in handle.output(), "it hangs")
    below = psutil.Process(handle.pid).children(recursive=True)
    assert len(below) == 2
    if manner == "stop":
        handle.stop()
        assert handle.wait(0.0) == ()
    elif manner == "shutdown":
        run.beside._end_beside()
        assert handle.wait(0.0) == ()
    else:  # its group dies with it; who hid in another session is the kernel's orphan
        psutil.Process(handle.pid).kill()
        with pytest.raises(EvaluationFailed, match="SIGKILL"):
            handle.wait(DEADLINE)
        evaluator, hidden = below
        hidden.kill()
        below = [evaluator]
    _, alive = psutil.wait_procs(below, timeout=DEADLINE)
    assert not alive


def test_a_cluster_that_is_shut_down_starts_none(run: Run) -> None:
    run.beside._end_beside()
    with pytest.raises(RunOver):
        run.evaluate(read_back)


@pytest.mark.parametrize(
    "arguments", [{"timeout": 0}, {"name": ""}, {"name": "../up"}, {"timeout": float("nan")}]
)
def test_arguments_are_checked(run: Run, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRun):
        run.evaluate(read_back, **arguments)


def test_what_cannot_be_pickled_is_named(run: Run) -> None:
    with pytest.raises(PayloadNotPicklable, match=r"args\['lock'\]"):
        run.evaluate(read_back, {"lock": threading.Lock()})


def test_a_run_without_model_dir_says_so(tmp_path: Path) -> None:
    beside = Beside(mirror=lambda: None, model_dir=None, is_training_over=lambda: True, say=print)
    with pytest.raises(InvalidRun, match="model_dir"):
        beside.evaluate_on_driver(read_back)


def test_checkpoints_in_an_object_store_are_evaluated(run: Run) -> None:
    import fsspec

    with ObjectStore() as store:
        bucket = fsspec.filesystem("s3", **store.storage_options, skip_instance_cache=True)
        bucket.mkdir("bucket")
        folder = f"bucket/model/checkpoints/{GENERATION}"
        bucket.pipe(f"{folder}/ckpt-1.data-00000-of-00001", b"1")
        bucket.pipe(f"{folder}/ckpt-1.index", INDEX)
        handle = run.evaluate(read_back, 10.0, model_dir="s3://bucket/model", env=store.environment)
        eventually(handle.results, "the first result")
        bucket.pipe(f"{folder}/ckpt-2.data-00000-of-00001", b"2")
        bucket.pipe(f"{folder}/ckpt-2.index", INDEX)
        run.is_over.set()
        found = handle.wait(DEADLINE)
    assert [(each.path, dict(each.metrics)) for each in found] == [
        (f"s3://{folder}/ckpt-1", {"value": 10.0}),
        (f"s3://{folder}/ckpt-2", {"value": 20.0}),
    ]
