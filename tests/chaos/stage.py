"""Spark applications for the rows: started when a row needs one, kept while the next can use it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.chaos import driving, proc
from tests.spark.application import Application, application
from tests.spark.helpers import eventually
from tests.spark.standalone import StandaloneCluster, standalone_cluster

LOCAL = "local-cluster"
STANDALONE = "standalone"

_EXECUTORS = 2
_DAEMON = "pyspark.daemon"
_LOCAL_MASTER = f"local-cluster[{_EXECUTORS},1,1024]"
_CALL_TIMEOUT = 90.0
_CONF = {
    "spark.executor.cores": "1",
    "spark.cores.max": str(_EXECUTORS),
    "spark.deploy.maxExecutorRetries": "-1",  # rows kill them one after the other
}


class Stage:
    """An application with two executors of one slot."""

    def __init__(
        self, app: Application, conf: Mapping[str, str], cluster: StandaloneCluster | None
    ) -> None:
        self.app = app
        self.conf = conf
        self.cluster = cluster
        self.driver = proc.find(app.pid)
        self.pending: Future[Any] | None = None

    def call(self, function: Any, *args: Any) -> Any:
        """What the function returned, after what was asked of the driver before."""
        return self.app.start(function, *args).result(_CALL_TIMEOUT)

    def ask(self, function: Any, *args: Any) -> None:
        """The same, without waiting for it."""
        self.pending = self.app.start(function, *args)

    @property
    def is_usable(self) -> bool:
        return proc.is_alive(self.driver)

    def settle(self) -> None:
        """Waits until the executors are there and have nothing to do."""
        eventually(lambda: self.call(driving.executors) >= _EXECUTORS, "the executors to be there")
        eventually(lambda: self.call(driving.is_idle), "Spark to be idle")


class Stages:
    """At most one application, and at most one standalone cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._application = ExitStack()
        self._stage: Stage | None = None
        self._standalone = ExitStack()
        self._cluster: StandaloneCluster | None = None

    def get(self, topology: str, conf: Mapping[str, str]) -> Stage:
        """An application that is ready. Raises what its start raised."""
        stage = self._stage
        if stage is not None and self._fits(stage, topology, conf) and stage.is_usable:
            try:
                stage.settle()
                return stage
            except Exception:  # it does not recover from what the last row did: take another one
                self.drop()
        else:
            self.drop()
        if topology == LOCAL:
            self._end_cluster()
        self._stage = self._start(topology, conf)
        return self._stage

    def _fits(self, stage: Stage, topology: str, conf: Mapping[str, str]) -> bool:
        cluster = self._cluster if topology == STANDALONE else None
        return stage.conf == conf and stage.cluster is cluster

    def _start(self, topology: str, conf: Mapping[str, str]) -> Stage:
        settings = {**_CONF, **conf}
        if topology == LOCAL:
            del settings["spark.executor.cores"], settings["spark.cores.max"]
            master = _LOCAL_MASTER
        else:
            settings["spark.executor.memory"] = "512m"
            master = self._standalone_cluster().url
        app = self._application.enter_context(application(master, settings, executors=_EXECUTORS))
        stage = Stage(app, conf, self._cluster)
        work = stage.call(driving.work_folder)
        self._application.callback(shutil.rmtree, work, ignore_errors=True)
        return stage

    def _standalone_cluster(self) -> StandaloneCluster:
        if self._cluster is None:
            self._count += 1
            place = self._folder / f"cluster-{self._count}"
            self._cluster = self._standalone.enter_context(standalone_cluster(place))
        return self._cluster

    def drop(self) -> None:
        """Ends the application, whatever state it is in."""
        stage, self._stage = self._stage, None
        stack, self._application = self._application, ExitStack()
        if stage is not None and not stage.is_usable:
            _kill_orphans(stage)
        with suppress(Exception):  # a row has killed or broken it: that is what rows are for
            stack.close()
        if stage is not None:
            _kill_orphans(stage)

    def drop_cluster(self) -> None:
        """Ends the application and the standalone cluster below it."""
        self.drop()
        self._end_cluster()

    def _end_cluster(self) -> None:
        stack, self._standalone = self._standalone, ExitStack()
        self._cluster = None
        with suppress(Exception):
            stack.close()

    def close(self) -> None:
        self.drop_cluster()


def kill_orphaned_workers() -> None:
    """Python workers whose daemon was killed. Spark would use them again for the next row, which
    may need a daemon to kill."""
    seen = proc.scan()
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for entry in seen.values():
        above = seen.get(entry.parent)
        is_spark = above is not None and ("java" in above.command or _DAEMON in above.command)
        if _DAEMON in entry.command and not is_spark:
            with suppress(OSError):
                if mark in Path(f"/proc/{entry.pid}/environ").read_bytes().split(b"\0"):
                    proc.send(entry.process, signal.SIGKILL)


def _kill_orphans(stage: Stage) -> None:
    """A dead driver's JVM and executors, should they be slow to notice."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    spared = set(stage.cluster.pids) if stage.cluster is not None else set()
    for entry in proc.scan().values():
        with suppress(OSError):
            variables = Path(f"/proc/{entry.pid}/environ").read_bytes().split(b"\0")
            is_spark = "org.apache.spark" in entry.command or _DAEMON in entry.command
            if is_spark and mark in variables and entry.pid not in spared:
                proc.send(entry.process, signal.SIGKILL)


MARK = "TFLEASE_CHAOS"
"""In the environment of everything that the matrix starts; its value is the matrix's own."""
