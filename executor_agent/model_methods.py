"""What `ctx` offers for checkpoints and models: everything below `model_dir`.

Owns: names and the documentation. A place that TensorFlow does not reach is behind `model_store`,
which is imported when there is one.
"""

import os
import re
import time
from typing import TYPE_CHECKING, Any

from coordinator.core.stall_timeouts import Section
from executor_agent import checkpoints, exports
from executor_agent.core.checkpoint_names import needs_copies
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal

if TYPE_CHECKING:
    from executor_agent.model_store import ModelStore

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class ModelMethods:
    """A part of `Context`."""

    model_dir: str | None
    local_dir: str
    is_chief: bool
    _generation_name: str
    _progress: ProgressReporter
    _stop: StopSignal
    _store: "ModelStore | None" = None

    @property
    def checkpoint_dir(self) -> str | None:
        """Where this generation of the run, and nobody else, saves its checkpoints; None without
        `model_dir`. Made when it is first asked for. A member of an earlier generation that was
        taken for dead, and is not, goes on writing into another one.

        A directory below `model_dir`, the same for all members. Where `model_dir` is a store that
        TensorFlow does not reach (s3:// and the like), a directory on this machine: what the chief
        saves there is copied to the store in the background, and the end of `main_fun` waits for
        the last copy.

        Raises:
            OSError, tf.errors.OpError: it cannot be made.
            StoreError: the store does not take what is written there.
        """
        if self.model_dir is None:
            return None
        if (store := self._model_store()) is not None:
            return store.checkpoint_dir()
        path = checkpoints.join(self._checkpoint_root(), self._generation_name)
        self._files().makedirs(path)
        return path

    def latest_checkpoint(self) -> str | None:
        """The newest complete TensorFlow checkpoint below `model_dir`, as `tf.train.Checkpoint`
        takes it (its path without ".index"); None when there is none. From a store that TensorFlow
        does not reach it is copied to this machine; the last two copies are kept.

        The newest run and generation comes first, whenever its files were written, and only then
        the time of the files: so what a member of an earlier generation still writes is not taken
        for the latest. A checkpoint is complete when its index and all of its shards are there.

        Raises:
            OSError, tf.errors.OpError: the directories cannot be read.
            StoreError: the store cannot be read.
        """
        if self.model_dir is None:
            return None
        if (store := self._model_store()) is not None:
            return store.latest()
        files = self._files()
        found = checkpoints.latest(self._checkpoint_root(), files)
        if found is not None:
            self._progress.saved(checkpoints.saved_at(found, files))
        return found

    def upload(self, path: "str | os.PathLike[str]", name: str | None = None) -> str:
        """Copy a file or a directory of this machine, such as a SavedModel, below `model_dir`, and
        wait until it is there. What has that name is replaced. Any member may do it; two must not
        for the same name.

        Args:
            path: what is copied.
            name: its path below `model_dir`; default: the last part of `path`.

        Returns:
            Where it is: a path, or a URL.

        Raises:
            ValueError: there is no model_dir, or the name is none.
            FileNotFoundError: there is no such `path`.
            OSError, tf.errors.OpError, StoreError: it cannot be copied.
        """
        if self.model_dir is None:
            raise ValueError("ctx.upload copies to model_dir, and this run has none")
        path = os.path.abspath(path)
        name = exports.checked_name(path, name)
        target = checkpoints.join(self.absolute_path(self.model_dir), name)
        if (store := self._model_store()) is not None:
            store.upload(path, target)
            return target
        entered = self._progress.enter(Section.CHECKPOINT)
        try:
            if _URI.match(self.model_dir):
                place = exports.TensorFlowPlace(self._gfile())
                exports.to_store(path, target, place, lambda: None)
            else:
                exports.to_directory(path, target)
        finally:
            self._progress.leave(entered)
        return target

    def absolute_path(self, path: str) -> str:
        """`path` made independent of the working directory.

        Args:
            path: a path, or a URI such as "hdfs://host/x" or "s3a://bucket/x".

        Returns:
            URIs and absolute paths as they are; relative paths against the working directory of
            this process. (TensorFlowOnSpark resolved them against Spark's default file system:
            write the URI where that is meant.)
        """
        return path if _URI.match(path) else os.path.abspath(path)

    def _checkpoint_saved(self) -> None:
        """A section "checkpoint" has ended well."""
        if not self.is_chief:
            return  # what others save is no model
        if self._store is None or not self._store.checkpoint_saved():
            self._progress.saved(time.time())

    def _explain(self, error: BaseException) -> None:
        """Add to what `main_fun` raised what it means for the store."""
        if self._store is not None:
            self._store.explain(error)

    def _finish_uploads(self, patience: float | None = None) -> None:
        """True on return: what was saved is where it is to be (E6).

        Raises StoreError: nothing has moved for `patience` seconds.
        """
        if self._store is not None:
            self._store.finish(patience)

    def _model_store(self) -> "ModelStore | None":
        if self._store is None and self.model_dir is not None and needs_copies(self.model_dir):
            from executor_agent.model_store import ModelStore

            self._store = ModelStore(
                self.model_dir,
                self._generation_name,
                self.local_dir,
                self._progress,
                is_writer=self.is_chief,
                is_stopping=self._stop.is_set,
            )
        return self._store

    def _checkpoint_root(self) -> str:
        return checkpoints.join(self.absolute_path(self.model_dir or ""), checkpoints.ROOT)

    def _files(self) -> checkpoints.Files:
        if self.model_dir is None or not _URI.match(self.model_dir):
            return checkpoints.LocalFiles()
        return checkpoints.TensorFlowFiles(self._gfile())

    def _gfile(self) -> Any:
        raise NotImplementedError
