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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coordinator.core.errors import TfleaseError
from coordinator.spark import payload
from coordinator.spark.side_process import SideProcess
from executor_agent.core import evaluation_files as files
from executor_agent.core.evaluation_files import Entry, EvaluationPlan

END_TIMEOUT = 600.0
"""Seconds after the end of the training without a word or a byte from the process, while the
function does not run, after which it counts as stuck."""

LEAVE_TIMEOUT = 30.0
"""Seconds that it has to leave once all is evaluated; it is waited for because what the function
has used may have something to do at Python's end."""

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
        self._heard_at = time.monotonic()  # once the training is over
        self._is_told = False  # that it is
        self._leaves_by: float | None = None
        self._pinned_bytes = -1
        self._read_bytes = 0
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._error: EvaluationFailed | None = None
        try:
            self._process = SideProcess(
                [sys.executable, "-m", "executor_agent.evaluation", str(self._directory)],
                self._directory / files.OUTPUT,
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

        Raises EvaluationFailed when the function raised, took longer than its timeout, its process
        died, or nothing came of it for ten minutes after the training; TimeoutError when it still
        runs after ``timeout`` seconds (it goes on).
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
            with ExitStack() as then:  # from the last to the first, and all: somebody may wait
                then.callback(self._ended.set)
                then.callback(shutil.rmtree, self._directory, ignore_errors=True)
                if self._error is not None:
                    then.callback(self._tell, f"failed: {_last_line(self._error.message)}")
                then.callback(self._process.stop, grace=0.0)

    def _follow(self) -> None:
        while not self._stopping.wait(_LOOK_INTERVAL):
            is_alive = self._process.is_alive  # before the look, which then sees all
            self._take_in()
            if self._error is not None:
                return
            if not is_alive:
                self._judge_the_end()
                return
            if self._leaves_by is not None and time.monotonic() > self._leaves_by:
                self._tell(
                    f"all is evaluated, and the process does not end within {LEAVE_TIMEOUT:g} s: "
                    "it is killed. The function may have left a thread that is no daemon"
                )
                return
            if (late := self._what_is_late()) is not None:
                self._error = EvaluationFailed(f"{self._name!r}: {late}")
                return
            if not self._is_told and self._is_training_over():
                (self._directory / files.FINISH).touch()
                self._is_told, self._heard_at = True, time.monotonic()

    def _what_is_late(self) -> str | None:
        now = time.monotonic()
        if self._under_way is not None:
            entry, since = self._under_way
            if now - since <= self._timeout:
                return None
            return (
                f"evaluating {entry.path} took longer than {self._timeout:g} s. Pass a larger "
                "timeout, or evaluate on less"
            )
        if not self._is_told or self._leaves_by is not None or now - self._heard_at <= END_TIMEOUT:
            return None
        pinned = _bytes_below(self._directory / files.PINNED)
        if pinned != self._pinned_bytes:  # a large checkpoint that is still coming
            self._pinned_bytes, self._heard_at = pinned, now
            return None
        end = self._process.output().strip()
        return (
            f"the training is over, and for {END_TIMEOUT:g} s its process has neither evaluated "
            f"the last checkpoint nor ended: does model_dir answer? The end of its output:\n"
            f"{end or '(nothing)'}"
        )

    def _tell(self, text: str) -> None:
        with suppress(Exception):  # a closed stream must not end what it tells of
            self._say(f"{self._name} {text}")

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
            self._under_way, self._heard_at = None, time.monotonic()
            if entry.event == files.BEGAN:
                self._under_way = entry, time.monotonic()
            elif entry.event == files.DONE:
                metrics = MappingProxyType(dict(entry.metrics))
                found = Evaluation(entry.step, entry.path, metrics, entry.seconds)
                self._results = (*self._results, found)
            elif entry.event == files.WAITS:
                self._tell(f"waits: {entry.text}")
            elif entry.event == files.ENDED:
                self._leaves_by = time.monotonic() + LEAVE_TIMEOUT
            else:
                what = f"evaluating {entry.path}" if entry.path else "it"
                self._error = EvaluationFailed(f"{self._name!r}: {what} failed:\n{entry.text}")


def _bytes_below(folder: Path) -> int:
    with suppress(OSError):
        return sum(each.stat().st_size for each in folder.iterdir())
    return 0


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
