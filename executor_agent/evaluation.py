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
from executor_agent.core import evaluation_files as files
from executor_agent.core.checkpoint_names import step_of
from executor_agent.core.evaluation_files import Entry, EvaluationPlan
from executor_agent.scalars import ScalarWriter

_LOOK_INTERVAL = 0.2  # seconds; for the end of the training
_LAST_LOOKS = 5  # how often at the end before a store that is away counts as lost
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
        self._scalars = ScalarWriter(Path(plan.events)) if plan.events is not None else None

    def run(self) -> None:
        """Raises what the user's function raises, once that is written down."""
        looks_left = _LAST_LOOKS
        while True:
            is_last = (self._directory / files.FINISH).exists()  # before the look: it sees all
            next_look_at = time.monotonic() + self._plan.every
            try:
                found = self._newest()
            except Exception:
                looks_left -= is_last
                if not looks_left:
                    raise
                traceback.print_exc()  # a store that is away for a while
                found = None
            else:
                if found is None and is_last:
                    return
            if found is not None:
                self._evaluate_one(*found)
            self._wait_until(next_look_at, is_last)

    def _newest(self) -> tuple[str, int] | None:
        """Where it is and when it was written; None when that was seen already."""
        path = checkpoints.latest(self._root, self._store)
        if path is None:
            return None
        found = path, self._store.written_at(f"{path}.index")
        return None if found == self._seen else found

    def _evaluate_one(self, path: str, written_at: int) -> None:
        pinned = self._pin(path)
        self._seen = path, written_at
        if pinned is None:
            return  # the training has deleted it; a younger one is there
        step = step_of(path)
        self._note(Entry(files.BEGAN, path, step))
        began_at = time.monotonic()
        try:
            metrics = _numbers(self._evaluate(Checkpoint(pinned, step)))
        except BaseException:
            self._note(Entry(files.FAILED, path, step, text=traceback.format_exc()))
            raise
        seconds = time.monotonic() - began_at
        if self._scalars is not None:
            try:
                self._scalars.write(max(step, 0), metrics)
            except OSError as error:
                print(f"no event file: {error}", file=sys.stderr, flush=True)
        self._note(Entry(files.DONE, path, step, seconds, metrics))

    def _pin(self, path: str) -> str | None:
        """The checkpoint under a name of its own on this machine; None when it is gone."""
        pinned = self._directory / files.PINNED
        shutil.rmtree(pinned, ignore_errors=True)
        pinned.mkdir()
        folder, _, prefix = path.rpartition("/")
        try:
            for name in self._store.names(folder):
                if name.startswith((f"{prefix}.index", f"{prefix}.data-")):
                    self._store.fetch(f"{folder}/{name}", str(pinned / name))
        except FileNotFoundError:
            return None
        return str(pinned / prefix) if (pinned / f"{prefix}.index").exists() else None

    def _note(self, entry: Entry) -> None:
        with open(self._directory / files.RESULTS, "a") as file:
            file.write(entry.to_line())

    def _wait_until(self, moment: float, is_last: bool) -> None:
        finish = self._directory / files.FINISH
        while time.monotonic() < moment and (is_last or not finish.exists()):
            time.sleep(_LOOK_INTERVAL)
            if is_last:
                return


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
    try:
        fn, args = pickle.loads((directory / files.WORK).read_bytes())
        evaluator = Evaluator(
            directory, plan, lambda each: fn(args, each), store_of(plan.model_dir)
        )
        evaluator.run()
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
