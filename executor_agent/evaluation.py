"""The process that evaluates checkpoints on the driver's machine: `python -m
executor_agent.evaluation DIRECTORY`, guarded (`executor_agent.guard`) and started by the driver.

Looks below the run's `model_dir` for complete checkpoints and calls the user's
`fn(args, checkpoint)` for the newest that it has not seen. Ends when the driver says that the
training is over and the last checkpoint is evaluated, or when the function raises: a number that is
missing in silence would be taken for one that has not come yet.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from executor_agent import checkpoints
from executor_agent.bounded_log import BoundedLog, LogTrimmer
from executor_agent.core import evaluation_files as files
from executor_agent.core.checkpoint_names import complete, files_of, is_whole_index, step_of
from executor_agent.core.evaluation_files import Entry, EvaluationPlan
from executor_agent.scalars import ScalarWriter

LAST_PATIENCE = 120.0
"""Seconds after the end of the training in which the last checkpoint must have come: from a store
that is away, or an index that is not there to its end."""

OUTPUT_BYTES = 16 * 1024 * 1024
"""How much is kept of what the user's function prints."""

_LOOK_INTERVAL = 0.2  # seconds; for the end of the training
_SHORTEST_LOOK, _LONGEST_LOOK = 0.2, 5.0  # seconds between two looks once the training is over
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")
_OF_TENSORFLOW = ("hdfs", "viewfs", "gs", "ram")
"""The schemes that members read through TensorFlow."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The second argument of the user's function. `path`: as `tf.train.Checkpoint.read` and
    `load_weights` take it, on this machine; it stays until the function returns, also where the
    training deletes old ones. `step`: the last number in its name, -1 without one."""

    path: str
    step: int


class Store(checkpoints.Files, Protocol):
    """A file system that one can fetch from."""

    def fetch(self, path: str, to: str) -> None:
        """Raises FileNotFoundError."""


class LocalStore(checkpoints.LocalFiles):
    """What the operating system mounts."""

    def fetch(self, path: str, to: str) -> None:
        """A second name costs nothing, and survives the end of the first."""
        try:
            os.link(path, to)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copy2(path, to)


class TensorFlowStore(checkpoints.TensorFlowFiles):
    """hdfs://, gs:// and the like."""

    def __init__(self, tensorflow: Any) -> None:
        super().__init__(tensorflow.io.gfile)
        self._tensorflow = tensorflow

    def fetch(self, path: str, to: str) -> None:
        try:
            self._tensorflow.io.gfile.copy(path, to)
        except self._tensorflow.errors.NotFoundError as error:
            raise FileNotFoundError(path) from error


class FsspecStore:
    """Any other URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._files, _ = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def makedirs(self, path: str) -> None:
        self._files.makedirs(path, exist_ok=True)

    def names(self, path: str) -> list[str]:
        try:
            self._files.invalidate_cache()
            found = self._files.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def written_at(self, path: str) -> int:
        try:
            return int(self._files.modified(path).timestamp() * 1e9)
        except FileNotFoundError:
            return 0

    def fetch(self, path: str, to: str) -> None:
        self._files.get_file(path, to)


def store_of(model_dir: str) -> Store:
    """Raises ImportError, ValueError where nothing knows such a URL."""
    url = _URL.match(model_dir)
    if url is None:
        return LocalStore()
    if url["scheme"] in _OF_TENSORFLOW:
        import tensorflow as tf

        return TensorFlowStore(tf)
    return FsspecStore(model_dir)


class _Later(Exception):
    """What is the newest cannot be had in this look; in the next one it may."""


class Evaluator:
    """Evaluates what comes until it is told that nothing comes any more."""

    def __init__(
        self,
        directory: Path,
        plan: EvaluationPlan,
        evaluate: Callable[[Checkpoint], Mapping[str, Any] | None],
        store: Store,
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._evaluate = evaluate
        self._store = store
        self._root = checkpoints.join(plan.model_dir, checkpoints.ROOT)
        self._seen: tuple[str, int] | None = None
        self._failures = 0  # looks in a row
        self._give_up_at: float | None = None
        self._scalars = ScalarWriter(Path(plan.events)) if plan.events is not None else None

    def run(self) -> None:
        """Raises what the user's function raises, once that is written down; what the store does,
        when it is away for too long at the end."""
        while True:
            is_last = (self._directory / files.FINISH).exists()  # before the look: it sees all
            next_look_at = time.monotonic() + self._plan.every
            try:
                found = self._newest()
            except Exception as error:
                if not self._may_come(error, is_last):
                    return
            else:
                self._failures, self._give_up_at = 0, None
                if found is not None:
                    self._evaluate_one(*found)
                elif is_last:
                    return
            self._wait_until(next_look_at, is_last)

    def _may_come(self, error: Exception, is_last: bool) -> bool:
        """Whether to look again after one that ended so: during the training always, and then for
        a while. False: go without. Raises it: that would be a loss that nobody sees."""
        self._failures += 1
        if is_last and self._give_up_at is None:
            self._failures, self._give_up_at = 1, time.monotonic() + LAST_PATIENCE
        is_over = self._give_up_at is not None and time.monotonic() >= self._give_up_at
        has_failed = not isinstance(error, _Later)
        if is_over and has_failed:
            raise error
        # Said at failures 1, 2, 4, 8...; what is soon there is no news.
        is_news = has_failed or (is_last and self._failures > 1)
        if is_over or (is_news and self._failures & (self._failures - 1) == 0):
            limit = f", for {LAST_PATIENCE:g} s at most" if is_last else ""
            then = "; passed over" if is_over else f"; looking again{limit}"
            said = f"{type(error).__name__}: {error}" if has_failed else str(error)
            self.note(Entry(files.WAITS, text=" ".join(said.split()) + then))
        return not is_over

    def _newest(self) -> tuple[str, int, str] | None:
        """Where it is, when it was written, and its name on this machine; None when that was seen
        already. Raises _Later."""
        later: _Later | None = None
        for path in checkpoints.newest_of_all(self._root, self._store):
            found = path, self._store.written_at(f"{path}.index")
            if found == self._seen:
                break
            if (pinned := self._pin(path)) is not None:
                return *found, pinned
            later = later or _Later(f"the index of {path} is not there to its end")
        if later is not None:
            raise later
        return None

    def _evaluate_one(self, path: str, written_at: int, pinned: str) -> None:
        self._seen = path, written_at
        step = step_of(path)
        self.note(Entry(files.BEGAN, path, step))
        began_at = time.monotonic()
        try:
            metrics = _numbers(self._evaluate(Checkpoint(pinned, step)))
        except BaseException:
            self.note(Entry(files.FAILED, path, step, text=traceback.format_exc()))
            raise
        seconds = time.monotonic() - began_at
        if self._scalars is not None:
            try:
                self._scalars.write(max(step, 0), metrics)
            except OSError as error:
                print(f"no event file: {error}", file=sys.stderr, flush=True)
        self.note(Entry(files.DONE, path, step, seconds, metrics))

    def _pin(self, path: str) -> str | None:
        """The checkpoint under a name of its own on this machine; None when its index is still
        being written. Raises _Later: it has been deleted, and a younger one is there."""
        pinned = self._directory / files.PINNED
        shutil.rmtree(pinned, ignore_errors=True)
        pinned.mkdir()
        folder, _, prefix = path.rpartition("/")
        names = self._store.names(folder)
        if prefix not in complete(names):
            raise _Later(f"{path} went away")
        try:
            for name in reversed(files_of(prefix, names)):  # the index, which is small, is first
                self._store.fetch(f"{folder}/{name}", str(pinned / name))
                is_index = name == f"{prefix}.index"
                if is_index and not is_whole_index((pinned / name).read_bytes()):
                    return None
        except FileNotFoundError as error:
            raise _Later(f"{path} went away") from error
        return str(pinned / prefix)

    def note(self, entry: Entry) -> None:
        """Raises OSError."""
        with open(self._directory / files.RESULTS, "a") as file:
            file.write(entry.to_line())

    def _wait_until(self, moment: float, is_last: bool) -> None:
        if is_last:
            pause = _SHORTEST_LOOK * 2.0 ** min(self._failures, 10)
            time.sleep(min(pause, _LONGEST_LOOK, LAST_PATIENCE))
            return
        finish = self._directory / files.FINISH
        while time.monotonic() < moment and not finish.exists():
            time.sleep(_LOOK_INTERVAL)


def _numbers(metrics: object) -> dict[str, float]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise TypeError(f"fn must return a mapping of names to numbers, not {metrics!r}")
    return {str(name): float(value) for name, value in metrics.items()}


def main(argv: list[str]) -> int:
    """0: all is evaluated. 1: it failed, and RESULTS says how."""
    directory = Path(argv[0])
    plan = EvaluationPlan.from_json((directory / files.PLAN).read_text())
    sys.path[:] = plan.sys_path
    log = BoundedLog(directory / files.OUTPUT, OUTPUT_BYTES)
    LogTrimmer(log, lambda text: print(text, file=sys.stderr, flush=True)).start()
    try:
        fn, args = pickle.loads((directory / files.WORK).read_bytes())
        evaluator = Evaluator(
            directory, plan, lambda each: fn(args, each), store_of(plan.model_dir)
        )
        evaluator.run()
        evaluator.note(Entry(files.ENDED))
    except BaseException:
        results = directory / files.RESULTS
        known = results.read_text() if results.exists() else ""
        if not any(entry.event == files.FAILED for entry in files.entries(known)):
            with suppress(OSError), open(results, "a") as file:
                file.write(Entry(files.FAILED, text=traceback.format_exc()).to_line())
        return 1
    return 0


if __name__ == "__main__":
    # Under its own name, so that what the user pickles of it is what others import.
    from executor_agent.evaluation import main as run

    sys.exit(run(sys.argv[1:]))
