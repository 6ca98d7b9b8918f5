"""`model_dir` at a place that TensorFlow does not reach: one member's side of it.

The chief saves into a local directory, which `uploader` copies; everybody fetches the latest
checkpoint from the store to a local directory. Owns those directories. Must not know the run.
"""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from executor_agent import exports
from executor_agent.checkpoints import ROOT, join, newest_of_all
from executor_agent.core.checkpoint_names import (
    complete,
    files_of,
    is_whole_index,
    newest_first,
    step_of,
)
from executor_agent.ingest.names import shown
from executor_agent.model_files import StoreError, StoreFiles, refusal, said_by
from executor_agent.patience import PATIENCE, patiently, say
from executor_agent.progress import ProgressReporter
from executor_agent.uploader import Uploader

_PROBE = ".tflease-probe"
_FETCHED_KEPT = 2  # TensorFlow reads the last one later where it restores what is not built yet
_FIRST_PATIENCE = 60.0  # seconds; who is wrong about the store is to know soon
_FETCH_TRIES = 5  # of checkpoints that went away meanwhile


class ModelStore:
    """What a member has of the store. `name`: this generation's directory; `is_writer`: what this
    member saves is the run's (the chief).

    Raises StoreError: the store's library is missing, or the URL makes no sense.
    """

    def __init__(
        self,
        url: str,
        name: str,
        local_dir: str,
        progress: ProgressReporter,
        *,
        is_writer: bool,
        is_stopping: Callable[[], bool],
        patience: float = PATIENCE,
    ) -> None:
        self._url = url
        self._root = join(url, ROOT)
        self._name = name
        self._folder = Path(local_dir, ROOT, name)
        self._fetched = Path(local_dir, "fetched-checkpoints")
        self._progress = progress
        self._is_writer = is_writer
        self._is_stopping = is_stopping
        self._patience = patience
        self._uploader: Uploader | None = None
        self._copies: dict[tuple[str, int], Path] = {}  # the newest last
        self.files = StoreFiles(url)

    def checkpoint_dir(self) -> str:
        """A local directory; what the writer saves there is copied from now on.

        Raises StoreError: the store does not take it.
        """
        if self._is_writer and self._uploader is None:
            self._try_to_write()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._uploader = Uploader(
                self._folder,
                join(self._root, self._name),
                self.files,
                saved=self._progress.saved,
                is_hurried=self._is_stopping,
            )
            self._uploader.start()
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._folder)

    def checkpoint_saved(self) -> bool:
        """One may have been saved. Whether it will be told when the store has it.

        Raises StoreError: data of it is not on this machine.
        """
        if self._uploader is None:
            return False
        self._uploader.look()
        return True

    def explain(self, error: BaseException) -> None:
        """Add to what `main_fun` raised what it means, where that is known."""
        if self._uploader is not None and type(error).__name__ == "NotFoundError":
            self._uploader.explain(error)

    def finish(self, patience: float | None = None) -> None:
        """True on return: the store has all that was saved. Raises StoreError (E6)."""
        if self._uploader is not None:
            limit = self._patience if patience is None else patience
            self._uploader.finish(self._progress, limit)

    def latest(self) -> str | None:
        """The newest complete checkpoint, on this machine; None: there is none.

        Raises StoreError.
        """
        doing = f"fetching the latest checkpoint from {shown(self._url)}"
        for _ in range(_FETCH_TRIES):
            try:
                return patiently(self._latest, doing, self._progress, self._patience)
            except _WentAway:
                continue  # the training removes old ones: there is a newer one
            except StoreError:
                raise
            except Exception as error:
                raise refusal(self._url, error, doing) from error
        raise StoreError(f"checkpoints below {shown(self._root)} go away while they are fetched")

    def upload(self, path: str, target: str) -> None:
        """Copy a file or directory there. Raises StoreError."""
        doing = f"copying {path} to {shown(target)}"
        try:
            copy = partial(exports.to_store, path, target, self.files)
            patiently(copy, doing, self._progress, self._patience)
        except StoreError:
            raise
        except Exception as error:
            raise refusal(self._url, error, doing) from error

    def _latest(self, moved: Callable[[], None]) -> str | None:
        for prefix in newest_of_all(self._root, self.files):
            moved()
            # What this member has saved since may not be there yet.
            generation = prefix.rpartition("/")[0].rpartition("/")[2]
            is_ours = newest_first([generation, self._name])[0] == self._name
            if is_ours and (here := self._newest_here()) is not None:
                return here
            if (copy := self._fetch(prefix, moved)) is not None:
                self._progress.saved(self.files.written_at(f"{prefix}.index") / 1e9)
                return copy
        return self._newest_here()

    def _newest_here(self) -> str | None:
        if self._uploader is None:
            return None
        found = []
        for prefix in complete(os.listdir(self._folder)):
            path = self._folder / prefix
            index = self._folder / f"{prefix}.index"
            if is_whole_index(index.read_bytes()):
                found.append((index.stat().st_mtime_ns, step_of(prefix), str(path)))
        return max(found)[2] if found else None

    def _fetch(self, prefix: str, moved: Callable[[], None]) -> str | None:
        """Where its copy is; None: it was never whole. Raises _WentAway."""
        folder, _, name = prefix.rpartition("/")
        version = prefix, self.files.written_at(f"{prefix}.index")
        if version in self._copies and (self._copies[version] / f"{name}.index").exists():
            return str(self._copies[version] / name)
        target = self._fetched / f"{folder.rpartition('/')[2]}-{version[1]:x}"
        half = target.with_name(f"{target.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        try:
            for each in reversed(files_of(name, self.files.names(folder))):
                self.files.get(join(folder, each), str(half / each), moved)
                moved()
                if each.endswith(".index") and not is_whole_index((half / each).read_bytes()):
                    say(f"{shown(prefix)} is passed over: its index was not written to its end")
                    shutil.rmtree(half)
                    return None
        except FileNotFoundError as error:
            raise _WentAway from error
        return str(self._keep(version, half, target) / name)

    def _keep(self, version: tuple[str, int], half: Path, target: Path) -> Path:
        # Several of one generation may have the same time.
        target = target / version[0].rpartition("/")[2]
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        os.replace(half, target)
        self._copies[version] = target
        while len(self._copies) > _FETCHED_KEPT:
            shutil.rmtree(self._copies.pop(next(iter(self._copies))), ignore_errors=True)
        return target

    def _try_to_write(self) -> None:
        probe = join(join(self._root, self._name), _PROBE)
        doing, patience = "writing a small file", min(self._patience, _FIRST_PATIENCE)
        try:
            write = partial(self.files.write, probe, b"tflease")
            patiently(lambda _: write(), doing, self._progress, patience)
        except Exception as error:
            raise refusal(self._url, error, doing) from error
        try:
            self.files.remove(probe)
        except Exception as error:
            say(
                f"warning: {shown(probe)} could not be removed ({said_by(error)}): "
                "old checkpoints will not be removed either"
            )


class _WentAway(LookupError):  # a LookupError: it is not tried again
    """A checkpoint was removed while it was fetched."""
