"""``tflease serve`` as the figures run it: in a temporary folder, on a core of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.cores import running_on
from coordinator.authority import new_authority
from coordinator.core.access import ClientTls

_START_TIMEOUT = 60.0
_END_TIMEOUT = 30.0
_LISTENS = re.compile(r"listens on (\S+):(\d+).* \(pid (\d+)")
_SERVE = (sys.executable, "-m", "coordinator.cli", "serve")


class Daemon:
    """A process of the standalone coordinator; on leaving it is gone. ``core``: where it runs,
    None: anywhere. ``folder`` outlives it: its token, its journal and its log are there. It has a
    journal where this version has any (`has_journal`).
    ``starts``: how often it was started. ``tls``: what a client needs, once it was started."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, core: int | None, *, with_tls: bool = False) -> None:
        self.folder = folder
        self.port = 0
        self.starts = 0
        self.tls: ClientTls | None = None
        self._with_tls = with_tls
        self._core = core
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> float:
        """The same port and the same journal as before, if it ran before. Returns when it was
        started, on the clock of ``time.monotonic``; it listens by then. Raises RuntimeError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        journal = ("--journal", str(self.folder / "journal")) if has_journal() else ()
        listen = ("--listen", f"{self.host}:{self.port}", "--log-level", "warning")
        token = ("--token-file", str(self.folder / "token"))
        tls = self._tls_options() if self._with_tls else ()
        began_at = time.monotonic()
        where = () if self._core is None else (self._core,)
        with (self.folder / "log").open("ab") as log, running_on(where):
            self._process = subprocess.Popen(
                [*_SERVE, *listen, *token, *journal, *tls],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = _LISTENS.search(said)
        if found is None:
            self._process.kill()
            self._process.wait()
            told = (self.folder / "log").read_text()[-500:]
            raise RuntimeError(f"the daemon did not start: {said.strip()} {told.strip()}")
        self.port = int(found[2])
        self.starts += 1
        return began_at

    def _tls_options(self) -> tuple[str, ...]:
        """Mutual TLS, by an authority of its own. The client's files are there, too."""
        if self.tls is None:
            server, self.tls = new_authority()
            pems = {
                "server.pem": server.certificate,
                "server.key": server.key,
                "ca.pem": self.tls.ca,
                "client.pem": self.tls.certificate,
                "client.key": self.tls.key,
            }
            for name, pem in pems.items():
                file = self.folder / name
                file.touch(mode=0o600)
                file.write_text(pem)
        paths = (str(self.folder / name) for name in ("server.pem", "server.key", "ca.pem"))
        options = zip(("--tls-cert", "--tls-key", "--tls-client-ca"), paths, strict=True)
        return tuple(part for option in options for part in option)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def cpu(self) -> float:
        """Seconds of its life on a core, all threads."""
        return cpu_of(self.pid)

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._close()

    def stop(self) -> None:
        """In order, or else by force. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        self._close()

    def _close(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def cpu_of(pid: int) -> float:
    """Seconds of a process's life on a core, all threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@cache
def has_journal() -> bool:
    """Whether this version's daemon can keep a journal."""
    told = subprocess.run(
        [*_SERVE, "--help"], capture_output=True, text=True, timeout=_START_TIMEOUT, check=True
    )
    return "--journal" in told.stdout
