"""A driver in a process of its own: started by a test, watched by what it leaves in its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.spark.helpers import DEADLINE, eventually, marked

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"


class Program:
    """``programs/NAME FOLDER ARGUMENTS...``, in a process group of its own."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / name), str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,  # where Spark leaves things
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def reached(self, mark: str, timeout: float = 2 * DEADLINE) -> str:
        """Waits for a file of this name; what is in it."""
        path = self._folder / mark

        def found() -> str | None:
            assert self.process.poll() is None or path.exists(), self.output()
            return (path.read_text() or "yes") if path.exists() else None

        return str(eventually(found, f"the program to reach {mark!r}", timeout))

    def processes(self, run_id: str = "") -> list[psutil.Process]:
        """Its tree, and the members of a run."""
        tree = psutil.Process(self.process.pid).children(recursive=True)
        return list({*tree, *(marked(run_id) if run_id else ())})

    def output(self) -> str:
        self._log.flush()
        return (self._folder / "log").read_text()

    def close(self) -> None:
        """At once, with all that is still in its group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()
