"""A real standalone Spark cluster on this machine: a master, and workers on addresses of their own.

Spark sees hosts by their addresses, so that two workers on 127.0.0.1 and 127.0.0.2 are two hosts to
it. Only so does it start speculative attempts, and retry a task "elsewhere".
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import psutil

START_TIMEOUT = 90.0
"""Seconds for all daemons together; generous, because the machine may be busy."""

STOP_TIMEOUT = 10.0
_POLL_INTERVAL = 0.05
_DAEMON_MEMORY = "256m"
_JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # they live for a minute or two
_TAIL = 2000
_INHERITED = "SPARK_"
"""Settings of the machine's own Spark have no say here."""


class Daemon:
    """A master or a worker: one Java process, and what it has said."""

    def __init__(self, host: str, folder: Path, main_class: str, *arguments: str) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        self.host = host
        self.name = f"{main_class.rpartition('.')[2]} on {host}"
        self._log_path = folder / "log"
        folder.mkdir(parents=True)
        (folder / "conf").mkdir()
        inherited = {key: value for key, value in os.environ.items() if _is_ours(key)}
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [str(home / "bin" / "spark-class"), main_class, "--host", host, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    "SPARK_HOME": str(home),
                    "SPARK_LOCAL_IP": host,
                    "SPARK_CONF_DIR": str(folder / "conf"),
                    "SPARK_LOCAL_DIRS": str(folder / "local"),
                    "SPARK_WORKER_DIR": str(folder / "work"),
                    "SPARK_DAEMON_MEMORY": _DAEMON_MEMORY,
                    "SPARK_DAEMON_JAVA_OPTS": _JAVA_OPTIONS,
                    # It would listen on a fixed port, one for all clusters of the machine.
                    "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
                },
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def said(self, pattern: str, deadline: float) -> re.Match[str]:
        """Waits for a line of its log. Raises RuntimeError with the end of that log."""
        while not (found := re.search(pattern, self.log())):
            ended = self.process.poll()
            if ended is not None or time.monotonic() >= deadline:
                what = "is too slow" if ended is None else f"ended with {ended}"
                raise RuntimeError(f"{self.name} {what}, not seen: {pattern}\n{self._tail()}")
            time.sleep(_POLL_INTERVAL)
        return found

    def _tail(self) -> str:
        return self.log()[-_TAIL:]


def _is_ours(variable: str) -> bool:
    return not variable.startswith(_INHERITED)


def _end(daemons: Sequence[Daemon]) -> None:
    """Ends them with everything below them: executors, and what tests have left in those."""
    tree = [process for daemon in daemons for process in _tree(daemon.pid)]
    for daemon in daemons:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(daemon.pid).resume()  # a test may have stopped it
        daemon.process.terminate()
    _, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for daemon in daemons:
        try:
            daemon.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            daemon.process.kill()
            daemon.process.wait()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@dataclass
class StandaloneCluster:
    """``url`` is what an application names as its master."""

    url: str
    master: Daemon
    workers: dict[str, Daemon] = field(default_factory=dict)
    """By address."""

    @property
    def pids(self) -> list[int]:
        """The daemons; executors are below the workers."""
        return [daemon.pid for daemon in (self.master, *self.workers.values())]

    def report(self, file: TextIO) -> None:
        """The ends of all logs, for whoever looks at a failed test."""
        for daemon in (self.master, *self.workers.values()):
            print(f"--- {daemon.name} ---\n{daemon._tail()}", file=file)


@contextmanager
def standalone_cluster(
    folder: Path,
    hosts: Sequence[str] = ("127.0.0.1", "127.0.0.2"),
    cores: int = 3,
    memory_mib: int = 4096,
) -> Iterator[StandaloneCluster]:
    """A cluster whose workers have registered. On leaving every process of it is gone, executors
    included; its files stay in ``folder``, which the caller removes.

    Raises RuntimeError with the log of who did not come up.
    """
    deadline = time.monotonic() + START_TIMEOUT
    package = "org.apache.spark.deploy"
    # Port 0 throughout: a port that is only looked for may be somebody else's by now.
    ports = ("--port", "0", "--webui-port", "0")
    size = ("--cores", str(cores), "--memory", f"{memory_mib}m")
    daemons: list[Daemon] = []
    try:
        master = Daemon(hosts[0], folder / "master", f"{package}.master.Master", *ports)
        daemons.append(master)
        url = master.said(r"Starting Spark master at (spark://\S+)", deadline)[1]
        cluster = StandaloneCluster(url, master)
        for host in hosts:
            place = folder / f"worker-{host}"
            worker = Daemon(host, place, f"{package}.worker.Worker", *ports, *size, url)
            daemons.append(worker)
            cluster.workers[host] = worker
        for host, worker in cluster.workers.items():
            worker.said("Successfully registered with master", deadline)
            master.said(rf"Registering worker {re.escape(host)}:", deadline)
        yield cluster
    finally:
        _end(daemons)
