"""A process beside the driver that must not outlive it: TensorBoard, the driver's evaluator.

Owns: its start below a guard (``executor_agent.guard``), its output in a file, its end. What it
does is its starter's business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import coordinator

_PACKAGE_ROOT = str(Path(coordinator.__file__).resolve().parent.parent)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_KILL_TIMEOUT = 10.0
"""Seconds for the guard to see all of a killed tree gone."""


class SideProcess:
    """Runs from the constructor on; in a session of its own, so that Ctrl-C does not reach it.

    It dies with the driver, however that ends, and everything that it starts dies with it. Killing
    the guard kills it, too, and its process group."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        grace: float = 3.0,
        scratch: Path | None = None,
    ) -> None:
        """``log``: its output is appended there. ``env``: on top of the driver's own. ``grace``:
        seconds between being asked to leave and being killed. ``scratch``: a directory that is
        removed when it is killed because the driver is gone, or by ``stop``. Raises OSError."""
        self._log = log
        self._grace = grace
        guard = [sys.executable, "-m", "executor_agent.guard", "--parent", str(os.getpid())]
        if scratch is not None:
            guard += ["--scratch", str(scratch)]
        with open(log, "ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                [*guard, "--grace", str(grace), "--", *command],
                stdin=subprocess.PIPE,  # the guard's lifeline
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(env or {}),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The guard's."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, 128 and the number of a signal. Raises TimeoutError."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} still runs after {timeout:g} s") from None
        self._let_go()
        return code if code >= 0 else 128 - code

    def how_it_ended(self) -> str:
        """In words; "it runs" while it does."""
        code = self._process.poll()
        if code is None:
            return "it runs"
        number = -code if code < 0 else code - 128
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(number).name}"
        return f"it ended with exit code {code}"

    def output(self, max_bytes: int = 16 * 1024) -> str:
        """The end of what it has printed."""
        try:
            with open(self._log, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._begin, end - max_bytes))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def stop(self, grace: float | None = None) -> None:
        """Asks it to leave, and kills it after the grace. On return it is gone, and all that it
        has started. ``grace`` can only shorten what the constructor gave. Idempotent."""
        patience = self._grace if grace is None else min(grace, self._grace)
        if patience > 0 and self.is_alive:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self._let_go()  # kills what is still there
        try:
            self._process.wait(_KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _let_go(self) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    environment = {**os.environ, **own}
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGE_ROOT, inherited)))
    environment["PYTHONSAFEPATH"] = "1"  # else a random.py in the working directory is theirs
    for name in ("no_proxy", "NO_PROXY"):  # what it says to itself must not take a proxy's way
        known = environment.get(name)
        environment[name] = ",".join(filter(None, (known, *_LOCAL_HOSTS)))
    return environment
