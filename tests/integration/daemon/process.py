"""Starts `tflease serve` and other commands as a user's shell does."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.client import RunClient

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 60.0
COMMAND = [sys.executable, "-m", "coordinator.cli"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Home:
    """A user's configuration folder, and the commands that find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tflease"
        self.token_file = self.folder / "token"
        inherited = {key: value for key, value in os.environ.items() if "TFLEASE_" not in key}
        marks = {key: os.environ[key] for key in os.environ if key.startswith("TFLEASE_TEST")}
        self.environment = {**inherited, **marks, "COLUMNS": "200"}
        self.environment |= {
            "XDG_CONFIG_HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
        }

    @property
    def notes(self) -> list[Path]:
        return sorted(self.folder.glob("daemon-*.json"))

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=ROOT,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def tflease(self, *arguments: str) -> Done:
        process = await self.start(*arguments)
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Done(process.returncode, out.decode(), err.decode())


class Daemon:
    """A `tflease serve`, which listens when the constructor returns."""

    def __init__(
        self, home: Home, port: int = 0, *arguments: str, program: tuple[str, ...] = ()
    ) -> None:
        """``program``: instead of the command line's own."""
        self.home = home
        command = [sys.executable, *program] if program else COMMAND
        self._log = home.folder.parent / "serve.err"
        with self._log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*command, "serve", "--listen", f"127.0.0.1:{port}", *arguments],
                cwd=ROOT,
                env=home.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        try:
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
            self.line = self.process.stdout.readline().decode() if ready else ""
            found = re.search(r"listens on (127\.0\.0\.1:(\d+)) ", self.line)
            assert found, f"it said {self.line!r} and {self.log}"
        except BaseException:
            self.close()
            raise
        self.address, self.port = found[1], int(found[2])

    @property
    def token(self) -> str:
        return self.home.token_file.read_text().strip()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self) -> RunClient:
        return RunClient(self.address, self.token)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


StartDaemon = Callable[..., Daemon]
"""``start(port, *arguments)``, of a user whose home the test has."""
