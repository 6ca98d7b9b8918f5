"""What is checked on the driver before any job is started (R1). Spark's side is a stand-in: what
it says is data here."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import FeatureUnavailable, NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles, Slots
from coordinator.spark import preflight


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


@pytest.mark.parametrize(
    "master, conf, slots",
    [
        ("local", {}, 1),
        ("local[4]", {}, 4),
        ("local[4,2]", {}, 4),
        ("local[ 4 , 2 ]", {}, 4),
        ("local[4]", {"spark.task.cpus": "2"}, 2),
        ("local[4]", {"spark.default.parallelism": "200"}, 4),
        ("local-cluster[2,3,1024]", {}, 6),
        ("local-cluster[ 2 , 3 , 1024 ]", {"spark.task.cpus": "2"}, 2),
        ("yarn", {"spark.executor.instances": "4", "spark.executor.cores": "3"}, 12),
        ("yarn", {"spark.executor.instances": "4"}, 4),
        ("k8s://https://api", {"spark.executor.instances": "4"}, 4),
        (
            "spark://m:7077",
            {
                "spark.executor.instances": "4",
                "spark.executor.cores": "5",
                "spark.task.cpus": "2",
            },
            8,
        ),
        (
            "yarn",
            {
                "spark.dynamicAllocation.enabled": "true",
                "spark.dynamicAllocation.maxExecutors": "10",
                "spark.executor.cores": "2",
            },
            20,
        ),
        (
            "yarn",
            {
                "spark.dynamicAllocation.enabled": "True",
                "spark.dynamicAllocation.maxExecutors": "10",
            },
            10,
        ),
    ],
)
def test_capacity_is_read_where_it_is_written(
    master: str, conf: dict[str, str], slots: int
) -> None:
    """R1: it cannot grow, so a run that does not fit fails at once."""
    found = preflight.capacity(session(master, conf))
    assert (found.slots, found.is_final) == (slots, True)
    assert found.how


@pytest.mark.parametrize("master", ["local[*]", "local[*,3]"])
def test_all_cores_of_this_machine_are_counted_by_spark(master: str) -> None:
    """Not by spark.default.parallelism, which is whatever somebody has set."""
    found = preflight.capacity(session(master, registered=8, parallelism=2))
    assert (found.slots, found.is_final) == (8, True)
    unknown = preflight.capacity(session(master, registered=None))
    assert not unknown.is_final


@pytest.mark.parametrize(
    "conf",
    [
        {"spark.dynamicAllocation.enabled": "true"},
        # A standalone executor has all cores of its host where nothing else is set.
        {"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.maxExecutors": "2"},
        {},
    ],
)
def test_a_capacity_that_may_grow_refuses_nobody(conf: dict[str, str]) -> None:
    """R12."""
    spark = session(conf=conf, registered=1)
    assert not preflight.capacity(spark).is_final
    preflight.check_slots(spark, Roles(worker=100))


@pytest.mark.parametrize(
    "registered, age, is_final", [(6, 60, True), (6, 5, False), (0, 60, False)]
)
def test_what_has_registered_counts_once_it_has_settled(
    registered: int, age: float, is_final: bool
) -> None:
    found = preflight.capacity(session(registered=registered, age=age))
    assert (found.slots, found.is_final) == (registered, is_final)


def test_executors_that_are_there_count_even_against_the_configuration() -> None:
    """Not every cluster manager keeps to spark.executor.instances."""
    conf = {"spark.executor.instances": "1", "spark.executor.cores": "2"}
    assert preflight.capacity(session(conf=conf, registered=8)).slots == 8


def test_a_run_that_can_never_be_seated_fails_with_the_numbers() -> None:
    """R1, R11."""
    with pytest.raises(NotEnoughSlots) as caught:
        preflight.check_slots(session("local[4]"), Roles(chief=1, worker=3, ps=2, evaluator=1))
    text = str(caught.value)
    assert "needs 7 task slots at once (1 chief + 3 worker + 2 ps + 1 evaluator)" in text
    assert "has 4 (master local[4]" in text
    assert "spark.executor.cores" in text
    assert caught.value.metadata == {"needed": "7", "slots": "4"}


def test_a_run_that_just_fits_is_not_refused() -> None:
    preflight.check_slots(session("local[4]"), Roles(worker=4))


def test_slots_and_how_many_are_busy() -> None:
    assert preflight.slots(session(registered=8)) == Slots(8, 3)


def test_a_spark_that_does_not_tell_costs_only_the_check() -> None:
    spark = session(registered=None)
    spark.sparkContext.statusTracker = None
    assert preflight.slots(spark) == Slots(0, -1)


def test_a_context_that_was_stopped_meanwhile_is_no_mistake_of_ours() -> None:
    """R6: a user may stop the session under a run; the failures of its jobs are still told."""
    spark = session()
    spark.sparkContext._jsc = None
    assert preflight.slots(spark).total == 0
    assert preflight.registered_slots(spark) == 0


class StoppedContext(Context):
    def __init__(self, jsc: Any) -> None:
        super().__init__("local[2]", {})
        self._jsc = jsc


def broken_jsc() -> Any:
    def sc() -> None:
        raise ConnectionRefusedError("the JVM is gone")

    return SimpleNamespace(sc=sc)


@pytest.mark.parametrize(
    "jsc",
    [None, SimpleNamespace(sc=lambda: Scala(0, is_stopped=True)), broken_jsc()],
    ids=["stopped", "stopped by the JVM", "JVM gone"],
)
def test_a_stopped_session_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, jsc: Any
) -> None:
    """R6."""
    monkeypatch.setattr("pyspark.SparkContext", StoppedContext)
    with pytest.raises(SparkUnusable, match="has been stopped: make a new session"):
        preflight.classic_session(StoppedContext(jsc))


def test_something_else_than_a_session_is_refused() -> None:
    with pytest.raises(SparkUnusable, match="expected a SparkSession or a SparkContext, got 3"):
        preflight.classic_session(3)


def test_spark_connect_is_said_to_be_missing() -> None:
    connect = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})
    with pytest.raises(FeatureUnavailable, match="use a classic SparkSession"):
        preflight.classic_session(connect())


KILL = "spark.sql.execution.pyspark.udf.killOnIdleTimeout.enabled"
IDLE = "spark.sql.execution.pyspark.udf.idleTimeoutSeconds"


@pytest.mark.parametrize(
    "conf, named",
    [
        ({IDLE: "60", KILL: "true"}, "killOnIdleTimeout"),
        ({IDLE: "60s", KILL: "TRUE"}, "killOnIdleTimeout"),
        ({"spark.executor.pyspark.memory": "2g"}, "spark.executor.pyspark.memory=2g"),
    ],
)
def test_a_configuration_that_kills_members_is_refused(conf: dict[str, str], named: str) -> None:
    with pytest.raises(SparkUnusable, match=named):
        preflight.check_environment(session(conf=conf))


@pytest.mark.parametrize(
    "conf",
    [{}, {IDLE: "60"}, {KILL: "true"}, {IDLE: "0", KILL: "true"}, {IDLE: "0s", KILL: "true"}],
)
def test_half_of_such_a_configuration_harms_nobody(conf: dict[str, str]) -> None:
    preflight.check_environment(session(conf=conf))
