"""`tflease serve` that is killed at a write to its journal: ``NUMBER before|after ARGUMENTS...``.

``before``: nothing of that write is on disk. ``after``: all of it is, and nobody has been told.
Writes count from when it listens; 0: it is never killed.
"""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import Future
from typing import Any

from coordinator import daemon
from coordinator.cli import main
from coordinator.journal import Journal

NUMBER, MOMENT = int(sys.argv[1]), sys.argv[2]
_write = Journal.write
_announce = daemon._announce
_listens = False
_written = 0


def announce(*arguments: Any) -> None:
    global _listens  # noqa: PLW0603
    _listens = True
    _announce(*arguments)


def write(self: Journal, *arguments: Any, **named: Any) -> Future[None]:
    global _written  # noqa: PLW0603  (one journal, one process)
    _written += _listens
    if _listens and _written == NUMBER and MOMENT == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = _write(self, *arguments, **named)
    if _listens and _written == NUMBER:
        done.result()
        os.kill(os.getpid(), signal.SIGKILL)
    return done


daemon._announce = announce
Journal.write = write  # type: ignore[method-assign]
sys.argv[1:] = sys.argv[3:]
main()
