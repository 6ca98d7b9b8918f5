"""The thread of a chief that copies its checkpoints to the store as they appear.

Owns: looking at the local directory, carrying out what `core.uploads` decides, and the wait for the
last one (E6). Must not know where the directory comes from.
"""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from executor_agent.checkpoints import join
from executor_agent.core.checkpoint_names import complete, files_of, is_whole_index, without_shards
from executor_agent.core.uploads import Action, LocalCheckpoint, Remove, Upload, Uploads, WriteNote
from executor_agent.ingest.errors import may_pass
from executor_agent.ingest.names import shown
from executor_agent.model_files import StoreError, StoreFiles, said_by
from executor_agent.patience import Movement, pause, say, wait
from executor_agent.progress import ProgressReporter

NOTE = "checkpoint"
"""How TensorFlow calls the file that names the latest checkpoint of a directory."""

_INTERVAL = 2.0  # seconds between two looks that nobody asked for
_REMOVE_TRIES = 3
_REFUSED_PATIENCE = 30.0  # seconds at the end, where another try can hardly help
_NAMES_SHOWN = 5

_LOST = (
    "{names}: TensorFlow wrote the index here and data somewhere else, so that it cannot be "
    "copied to {url}. "
)
_OPTION = (
    "Parameter servers save their variables on their own disks unless they are told to send them: "
    'give options=tf.train.CheckpointOptions(experimental_io_device="/job:chief/task:0") to save '
    "and to restore"
)


class Uploader:
    """Copies `folder` to the URL `target`, which nobody else writes to.

    `saved(at)` is called for each checkpoint that the store has; `is_hurried()` tells whether the
    member is to stop.
    """

    def __init__(
        self,
        folder: Path,
        target: str,
        files: StoreFiles,
        *,
        saved: Callable[[float], None],
        is_hurried: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._pinned = folder.with_name(f"{folder.name}.uploading")
        self._target = target
        self._files = files
        self._saved = saved
        self._is_hurried = is_hurried
        self._uploads = Uploads()
        self._movement = Movement()
        self._condition = threading.Condition()
        self._asked = self._ending = self._settled = self._abandoned = False
        self._error: Exception | None = None  # of the last try
        self._failures = 0  # in a row
        self._patience = 0.0  # of who waits for the end
        self._warned: set[str] = set()

    def start(self) -> None:
        threading.Thread(target=self._run, name="tflease-uploads", daemon=True).start()

    def look(self) -> None:
        """There may be a new checkpoint: called in the thread that has saved it.

        Raises StoreError: data of it is not on this machine.
        """
        self._check_shards()
        with self._condition:
            self._asked = True
            self._condition.notify_all()

    def explain(self, error: BaseException) -> None:
        """Parts of a checkpoint that were to be put together here, and are not here."""
        if any(self._folder.glob("*_temp")):
            error.add_note(f"While a checkpoint was saved in {self._folder}. {_OPTION}")

    def finish(self, progress: ProgressReporter, patience: float) -> None:
        """True on return: the store has all that is to be there.

        Raises StoreError: nothing has moved for `patience` seconds; or data is not here.
        """
        self._movement.moved()
        with self._condition:
            self._ending, self._patience = True, patience
            self._condition.notify_all()
        if not wait(self._is_over, self._movement, progress, patience) or not self._settled:
            with self._condition:  # nobody waits for another try
                self._abandoned = True
                self._condition.notify_all()
            raise self._loss() from self._error
        self._check_shards()
        self._tell_others()

    def _is_over(self, timeout: float) -> bool:
        with self._condition:
            if self._condition.wait_for(lambda: self._settled, timeout):
                return True
            refused = self._error is not None and not may_pass(self._error)
        return refused and self._movement.silence > min(_REFUSED_PATIENCE, self._patience)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._asked or self._ending, _INTERVAL)
                self._asked, ending = False, self._ending
            try:
                while (action := self._next()) is not None:
                    self._carry_out(action)
                    self._succeeded()
                if self._uploads.newest is None:
                    self._check_shards(warn_only=True)
            except Exception as error:
                self._failed(error)
                if self._abandoned:
                    return
                continue
            if ending:
                with self._condition:
                    self._settled = True
                    self._condition.notify_all()
                return

    def _succeeded(self) -> None:
        if self._failures:
            say(f"the store is back: {shown(self._target)}")
        with self._condition:
            self._failures, self._error = 0, None

    def _failed(self, error: Exception) -> None:
        with self._condition:
            self._failures, self._error = self._failures + 1, error
            failures = self._failures
        if failures & (failures - 1) == 0:  # 1, 2, 4, 8...
            what = f"a checkpoint could not be copied to {shown(self._target)} (try {failures})"
            say(f"{what}: {said_by(error)}")
        with self._condition:  # not so long once somebody waits for it
            was_ending = self._ending
            self._condition.wait_for(
                lambda: self._ending != was_ending or self._abandoned, pause(failures)
            )

    def _next(self) -> Action | None:
        found, notes = self._found()
        return self._uploads.next(found, notes, hurry=self._is_hurried())

    def _carry_out(self, action: Action) -> None:
        self._uploads.begin(action)
        match action:
            case Upload(checkpoint, remove_first):
                if not self._upload(checkpoint, remove_first):
                    return  # it was removed before it was copied
                self._saved(checkpoint.written_at / 1e9)
            case WriteNote(name, text):
                self._files.write(join(self._target, name), text.encode())
            case Remove(prefix, names):
                self._remove(prefix, names)
        self._movement.moved()
        self._uploads.done(action)

    def _upload(self, checkpoint: LocalCheckpoint, remove_first: str | None) -> bool:
        """Second names keep the files, whoever removes the first ones meanwhile."""
        shutil.rmtree(self._pinned, ignore_errors=True)
        try:
            for name in checkpoint.files:
                pinned = self._pinned / name
                pinned.parent.mkdir(parents=True, exist_ok=True)
                _link(self._folder / name, pinned)
        except FileNotFoundError:
            return False
        if remove_first is not None:
            self._files.remove(join(self._target, remove_first))
        for name in checkpoint.files:
            pinned = self._pinned / name
            self._files.put(str(pinned), join(self._target, name), self._movement.moved)
            self._movement.moved()
        shutil.rmtree(self._pinned, ignore_errors=True)
        return True

    def _remove(self, prefix: str, names: tuple[str, ...]) -> None:
        for tries in range(1, _REMOVE_TRIES + 1):
            try:
                for name in names:
                    self._files.remove(join(self._target, name))
                return
            except Exception as error:
                if tries == _REMOVE_TRIES:  # an old one too many harms nobody
                    self._warn(
                        f"old checkpoints stay in {shown(self._target)}: {prefix} could not be "
                        f"removed: {said_by(error)}"
                    )

    def _found(self) -> tuple[list[LocalCheckpoint], dict[str, str]]:
        names = list(_names_below(self._folder))
        found, notes = [], {}
        for prefix in complete(names):
            files = files_of(prefix, names)
            index = self._folder / files[-1]
            try:
                if not is_whole_index(_end_of(index)):
                    continue  # it is being written
                facts = [os.stat(self._folder / name) for name in files]
            except FileNotFoundError:
                continue
            version = tuple(each for fact in facts for each in (fact.st_mtime_ns, fact.st_size))
            found.append(LocalCheckpoint(prefix, tuple(files), version, facts[-1].st_mtime_ns))
        for name in names:
            if name.rpartition("/")[2] == NOTE:
                with suppress(FileNotFoundError):
                    notes[name] = (self._folder / name).read_text()
        return found, notes

    def _check_shards(self, *, warn_only: bool = False) -> None:
        """Raises StoreError."""
        # TensorFlow writes an index after its shards and removes it before them.
        lost = without_shards(_names_below(self._folder))
        if not lost:
            return
        text = _LOST.format(names=_listed(lost), url=shown(self._target)) + _OPTION
        if not warn_only:
            raise StoreError(text)
        self._warn(text)

    def _loss(self) -> StoreError:
        found, _ = self._found()
        newest = self._uploads.newest
        waiting = _listed([each.prefix for each in self._uploads.waiting(found)]) or "nothing"
        has = f"the newest that is there is {newest.prefix}" if newest else "none of them is there"
        silence = f"nothing has moved for {self._movement.silence:.0f} s"
        cause = f" ({said_by(self._error)})" if self._error else ""
        return StoreError(
            f"the last checkpoints did not get to {shown(self._target)}: {silence}{cause}. "
            f"Not copied: {waiting}, of {self._folder}, which is removed with this member; {has}"
        )

    def _tell_others(self) -> None:
        """What is no checkpoint is not copied: that must not be a surprise."""
        names = list(_names_below(self._folder))
        known = {file for prefix in complete(names) for file in files_of(prefix, names)}
        others = [each for each in names if each not in known and each.rpartition("/")[2] != NOTE]
        if others:
            self._warn(
                f"ctx.checkpoint_dir has files that are no TensorFlow checkpoints and were not "
                f"copied to {shown(self._target)}: {_listed(others)}. ctx.upload(path) copies them"
            )

    def _warn(self, text: str) -> None:
        """Once."""
        if text not in self._warned:
            self._warned.add(text)
            say(f"warning: {text}")


def _names_below(folder: Path) -> list[str]:
    """All files, relative to it. What TensorFlow has in its temporary folders does not count."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.endswith("_temp")]
        found += [os.path.relpath(os.path.join(root, name), folder) for name in names]
    return sorted(found)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copy2(path, to)


def _end_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        return file.read()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
