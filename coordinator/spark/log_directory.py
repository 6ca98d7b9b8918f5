"""``log_dir`` of a run, as the driver sees it: where event files arrive, and where they end up.

A local directory is the mirror itself. Anything else is a store, to which the mirror, a temporary
directory then, is copied.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from coordinator.core.errors import InvalidRun
from coordinator.core.model import RunView
from coordinator.file_client import FileClient
from coordinator.spark.event_files import DRAIN_TIMEOUT, EventFileMirror, whose_end_is_known
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.spark.store_copy import StoreCopy, is_url, local_path

_log = logging.getLogger("tflease")

_LAST_COPY_TIMEOUT = 60.0


class LogDirectory:
    """Of one run. ``mirror``: the directory that has what the members have written, each in one of
    its own (``worker-1``)."""

    def __init__(
        self,
        log_dir: str | None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        """``log_dir`` None: a new temporary directory. Raises InvalidRun."""
        self._say = say or _log.warning
        self._is_store = log_dir is not None and is_url(log_dir)
        is_temporary = log_dir is None or self._is_store
        self._copy: StoreCopy | None = None
        self._receiver: EventFileMirror | None = None
        self._is_closed = False
        if log_dir is not None and not is_temporary:
            self.mirror = local_path(log_dir)
        else:
            self.mirror = Path(tempfile.mkdtemp(prefix="tflease-events-"))
        try:
            self.mirror.mkdir(parents=True, exist_ok=True)
            if self._is_store and log_dir is not None:
                self._copy = StoreCopy(self.mirror, log_dir, self._say)
        except OSError as error:
            raise InvalidRun(
                f"log_dir={log_dir!r} cannot be made: {error}; give a directory of this machine "
                "that can be written to, or an URL"
            ) from None
        except BaseException:
            if is_temporary:  # else it is the user's, with what was there before
                shutil.rmtree(self.mirror, ignore_errors=True)
            raise
        if log_dir is None:
            self._say(f"event files arrive in {self.mirror}")

    def receive(self, client: FileClient) -> None:
        """Begins; once. ``client`` is closed by ``close``."""
        self._receiver = EventFileMirror(client, MirroredFiles(self.mirror), self._say)
        self._receiver.start()
        if self._copy is not None:
            self._copy.start()

    def drain(self, run: RunView, timeout: float = DRAIN_TIMEOUT) -> None:
        """Returns when everything is here that the members that have ended had written; bounded."""
        if self._receiver is not None and not self._is_closed:
            self._receiver.drain(whose_end_is_known(run), timeout)

    def close(self) -> None:
        """Receives nothing more, and makes the last copy. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._receiver is not None:
            self._receiver.close()
        if self._copy is not None and self._copy.finish(_LAST_COPY_TIMEOUT):
            shutil.rmtree(self.mirror, ignore_errors=True)
