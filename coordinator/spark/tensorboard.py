"""TensorBoard on the driver's machine: started, waited for, started again when it dies, ended.

Owns: its command line, its address, and what the user is told of it. Which event files it shows is
its starter's business.
"""

from __future__ import annotations

import html
import http.client
import importlib.util
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from coordinator.core.errors import FeatureUnavailable, InvalidRun, TfleaseError
from coordinator.spark import notebook
from coordinator.spark.side_process import SideProcess

START_TIMEOUT = 60.0
"""Seconds until it must answer. It imports TensorFlow, which takes its time."""

_PROGRAM = (sys.executable, "-m", "tensorboard.main")
_LOOK_INTERVAL = 0.1
_SETTLED = 60.0
"""Seconds after which another death is no longer the same one: it is started again."""

_ADDRESS = re.compile(r"TensorBoard \S+ at http://\S+?:(\d+)/")
_WILDCARDS = ("0.0.0.0", "::")
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
"""It imports TensorFlow, and must not take a GPU's memory by that."""


class TensorBoardUnavailable(TfleaseError):
    """TensorBoard did not start; the message has the end of its output."""

    reason = "TENSORBOARD_UNAVAILABLE"


def check_installed() -> None:
    """Raises FeatureUnavailable."""
    if importlib.util.find_spec("tensorboard") is None:
        raise FeatureUnavailable(
            "TensorBoard is not installed on the driver: pip install 'tflease[tensorboard]'"
        )


class TensorBoard:
    """Runs from the constructor to ``close``, or to the driver's end. ``url``: where it is."""

    def __init__(
        self,
        log_dir: Path,
        *,
        say: Callable[[str], object],
        host: str = "localhost",
        port: int = 0,
        path_prefix: str = "",
        reload_interval: float = 1.0,
        extra: Sequence[str] = (),
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        """Returns when it answers. ``program``: for tests. Raises InvalidRun, FeatureUnavailable
        where it is not installed, TensorBoardUnavailable."""
        self._prefix = _checked_prefix(path_prefix)
        _check_port(host, port)
        if program is _PROGRAM:
            check_installed()
        self._say, self._host, self._port = say, host, port
        self._command = [
            *program,
            *("--logdir", str(log_dir), "--host", host),
            *("--reload_interval", f"{reload_interval:g}", "--reload_multifile=true"),
            *(("--path_prefix", self._prefix) if self._prefix else ()),
            *extra,
        ]
        self._directory = Path(tempfile.mkdtemp(prefix="tflease-tensorboard-"))
        self._closing = threading.Event()
        self._process: SideProcess | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        self._watch = threading.Thread(
            target=self._watch_over, name="tflease-tensorboard", daemon=True
        )
        self._watch.start()

    @property
    def url(self) -> str:
        """As a browser takes it; with this machine's name where it listens on all interfaces."""
        host = socket.getfqdn() if self._host in _WILDCARDS else self._host
        return self._url_at(host)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive

    @property
    def pid(self) -> int | None:
        """Its guard's."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """On return nothing of it is left. Idempotent."""
        self._closing.set()
        if self._process is not None:
            self._process.stop(grace=0.0)  # it has nothing to save
        if hasattr(self, "_watch") and self._watch is not threading.current_thread():
            self._watch.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        """Once more at the port that it had, so that the user's browser finds it again."""
        process = SideProcess(
            [*self._command, "--port", str(self._port)],
            self._directory / "output",
            env=_ENVIRONMENT,
            scratch=self._directory,
        )
        self._process = process
        if self._closing.is_set():  # closed meanwhile, by another thread that saw the old one
            process.stop(grace=0.0)
            return
        give_up_at = time.monotonic() + START_TIMEOUT
        while not self._answers(process):
            if not process.is_alive:
                raise TensorBoardUnavailable(_failure(process.how_it_ended(), process.output()))
            if time.monotonic() >= give_up_at:
                text = f"it did not answer within {START_TIMEOUT:g} s"
                raise TensorBoardUnavailable(_failure(text, process.output()))
            self._closing.wait(_LOOK_INTERVAL)

    def _answers(self, process: SideProcess) -> bool:
        if self._port == 0:
            found = _ADDRESS.search(process.output())
            if found is None:
                return False
            self._port = int(found[1])
        elif not _ADDRESS.search(process.output()):
            return False  # whoever answers there is somebody else
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(self._url_at(loopback.get(self._host, self._host)), timeout=5.0):
                return True
        except urllib.error.HTTPError:
            return True  # it speaks
        except (OSError, http.client.HTTPException):
            return False

    def _url_at(self, host: str) -> str:
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self._port}{self._prefix}/"

    def _watch_over(self) -> None:
        started_at, was_restarted = time.monotonic(), False
        while True:
            process = self._process
            assert process is not None
            process.wait()
            if self._closing.is_set():
                return
            how = process.how_it_ended()
            if was_restarted and time.monotonic() - started_at < _SETTLED:
                self._say(f"TensorBoard died again ({how}); cluster.start_tensorboard() starts it")
                return
            self._say(f"TensorBoard died ({how}); starting it again at {self.url}")
            started_at, was_restarted = time.monotonic(), True
            try:
                self._start()
            except (TfleaseError, OSError) as error:
                if self._process is not None:
                    self._process.stop(grace=0.0)
                if not self._closing.is_set():
                    self._say(str(error))
                return


def announce(url: str, say: Callable[[str], object]) -> None:
    """Tells the user where it is: a link in a notebook, a line elsewhere."""
    text = f"TensorBoard: {url}"
    if not notebook.is_running():
        say(text)
        return
    link = html.escape(url, quote=True)
    page = f'TensorBoard: <a href="{link}" target="_blank" rel="noopener">{link}</a>'
    notebook.Display().show(page, text)


def _checked_prefix(prefix: str) -> str:
    if not prefix.strip("/"):
        return ""
    if not re.fullmatch(r"[\w.~/-]+", prefix):
        raise InvalidRun(f"path_prefix must be a path such as '/proxy/6006', not {prefix!r}")
    return "/" + prefix.strip("/")


def _check_port(host: str, port: int) -> None:
    """At once, and not after the seconds that its start takes."""
    if not 0 <= port < 65536:
        raise InvalidRun(f"port must be between 0 (any that is free) and 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TensorBoard does
            probe.bind(address)
    except OSError as error:
        raise TensorBoardUnavailable(
            f"TensorBoard cannot listen on {host}:{port}: {error.strerror or error}. Leave port "
            "out for any that is free"
        ) from None


def _failure(text: str, output: str) -> str:
    end = "\n".join(output.strip().splitlines()[-20:])
    return f"TensorBoard did not start: {text}. The end of its output:\n{end or '(nothing)'}"
