"""A classic session of Spark's without a JVM: what it says is data here."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any


class Conf:
    """Of a context and of a session alike."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def get(self, key: str, default: str | None = None) -> str | None:
        return self._values.get(key, default)


class Scala:
    """The JVM's SparkContext."""

    def __init__(self, registered: int | None, is_stopped: bool = False) -> None:
        self._registered = registered
        self._is_stopped = is_stopped

    def isStopped(self) -> bool:
        return self._is_stopped

    def resourceProfileManager(self) -> Any:
        return SimpleNamespace(defaultResourceProfile=lambda: "default")

    def maxNumConcurrentTasks(self, profile: str) -> int:
        if self._registered is None:
            raise RuntimeError("an interface that this Spark does not have")
        return self._registered


class Context:
    def __init__(
        self,
        master: str,
        conf: dict[str, str],
        registered: int | None = 0,
        age: float = 1.0,
        parallelism: int = 2,
    ) -> None:
        self.master = master
        self.startTime = int((time.time() - age) * 1000)
        self.defaultParallelism = parallelism
        self._conf = Conf(conf)
        self._jsc: Any = SimpleNamespace(sc=lambda: Scala(registered))
        self.busy = [1, 2]

    def getConf(self) -> Conf:
        return self._conf

    def statusTracker(self) -> Any:
        infos = [SimpleNamespace(numRunningTasks=number) for number in self.busy]
        return SimpleNamespace(getExecutorInfos=lambda: infos)


def session(master: str = "spark://m:7077", conf: dict[str, str] | None = None, **more: Any) -> Any:
    conf = conf or {}
    return SimpleNamespace(sparkContext=Context(master, conf, **more), conf=Conf(conf))
