"""Checkpoints evaluated on the driver's machine while the cluster trains: the handle of it.

Owns: the evaluating process from its start to its end, and what it has found. The process itself is
``executor_agent.evaluation``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coordinator.core.errors import TfleaseError
from coordinator.spark import payload
from coordinator.spark.side_process import SideProcess
from executor_agent.core import evaluation_files as files
from executor_agent.core.evaluation_files import Entry, EvaluationPlan

_LOOK_INTERVAL = 0.1
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class EvaluationFailed(TfleaseError):
    """The function that evaluates raised, took too long, or its process died. The message has the
    traceback or the end of the output. The training goes on."""

    reason = "EVALUATION_FAILED"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One checkpoint: ``path`` where it was saved, ``metrics`` as the function returned them,
    ``seconds`` that it took."""

    step: int
    path: str
    metrics: Mapping[str, float] = field(hash=False)
    seconds: float


class DriverEvaluation:
    """Evaluates from the constructor on, until the last checkpoint of the training is done, the
    function fails, ``stop``, or the end of the cluster or the driver. Thread-safe."""

    def __init__(
        self,
        fn: Callable[[Any, Any], Mapping[str, Any] | None],
        args: Any,
        *,
        model_dir: str,
        events: Path | None,
        is_training_over: Callable[[], bool],
        say: Callable[[str], object],
        every: float,
        timeout: float,
        name: str,
        env: Mapping[str, str],
    ) -> None:
        """Not public: use ``TFCluster.evaluate_on_driver``. ``events``: the directory of its event
        files. Raises InvalidRun, PayloadNotPicklable, OSError."""
        work = payload.pack(fn, args)
        self._is_training_over = is_training_over
        self._say, self._timeout, self._name = say, timeout, name
        self._directory = Path(tempfile.mkdtemp(prefix="tflease-evaluation-"))
        plan = EvaluationPlan(
            model_dir if _URL.match(model_dir) else os.path.abspath(model_dir),
            every,
            None if events is None else str(events),
            tuple(sys.path),
        )
        (self._directory / files.PLAN).write_text(plan.to_json())
        (self._directory / files.WORK).write_bytes(work)
        self._results: tuple[Evaluation, ...] = ()
        self._under_way: tuple[Entry, float] | None = None  # and since when we have known
        self._read_bytes = 0
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._error: EvaluationFailed | None = None
        try:
            self._process = SideProcess(
                [sys.executable, "-m", "executor_agent.evaluation", str(self._directory)],
                self._directory / "output",
                env={"CUDA_VISIBLE_DEVICES": "", **env},
                scratch=self._directory,
            )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self._watch = threading.Thread(target=self._watch_over, name=f"tflease-{name}", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        """Its guard's."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    def results(self) -> tuple[Evaluation, ...]:
        """What is known by now, in the order of evaluation."""
        return self._results

    def output(self, max_bytes: int = 64 * 1024) -> str:
        """The end of what the function has printed, as long as it runs."""
        return self._process.output(max_bytes)

    def wait(self, timeout: float | None = None) -> tuple[Evaluation, ...]:
        """Waits until the training is over and its last checkpoint is evaluated; all results.

        Raises EvaluationFailed when the function raised, took longer than its timeout, or its
        process died; TimeoutError when it still runs after ``timeout`` seconds (it goes on).
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self._name!r} still runs after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._results

    def stop(self) -> None:
        """Ends it, whatever it does; the training goes on. On return nothing of it is left.
        Idempotent."""
        self._stopping.set()
        if self._watch is not threading.current_thread():
            self._watch.join()

    def _watch_over(self) -> None:
        try:
            self._follow()
        except Exception as error:  # a full disk, a bug of ours: never a thread that ends silently
            self._error = EvaluationFailed(f"{self._name!r} cannot be followed: {error!r}")
        finally:
            self._process.stop(grace=0.0)
            if self._error is not None:
                self._say(f"{self._name} failed: {_last_line(self._error.message)}")
            shutil.rmtree(self._directory, ignore_errors=True)
            self._ended.set()

    def _follow(self) -> None:
        while not self._stopping.wait(_LOOK_INTERVAL):
            is_alive = self._process.is_alive  # before the look, which then sees all
            self._take_in()
            if self._error is not None:
                return
            if not is_alive:
                self._judge_the_end()
                return
            if self._under_way is not None:
                entry, since = self._under_way
                if time.monotonic() - since > self._timeout:
                    self._error = EvaluationFailed(
                        f"{self._name!r}: evaluating {entry.path} took longer than "
                        f"{self._timeout:g} s. Pass a larger timeout, or evaluate on less"
                    )
                    return
            if self._is_training_over():
                (self._directory / files.FINISH).touch()

    def _judge_the_end(self) -> None:
        if self._process.wait() != 0:
            end = self._process.output().strip()
            self._error = EvaluationFailed(
                f"{self._name!r}: its process died: {self._process.how_it_ended()}. The end of its "
                f"output:\n{end or '(nothing)'}"
            )

    def _take_in(self) -> None:
        try:
            with open(self._directory / files.RESULTS, "rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for entry in files.entries(whole.decode()):
            self._under_way = None
            if entry.event == files.BEGAN:
                self._under_way = entry, time.monotonic()
            elif entry.event == files.DONE:
                metrics = MappingProxyType(dict(entry.metrics))
                found = Evaluation(entry.step, entry.path, metrics, entry.seconds)
                self._results = (*self._results, found)
            else:
                what = f"evaluating {entry.path}" if entry.path else "it"
                self._error = EvaluationFailed(f"{self._name!r}: {what} failed:\n{entry.text}")


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
