"""The seam to a classic session. What tags and threads do is tried on a real one in tests/spark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Slots
from coordinator.spark.classic import ClassicGateway
from coordinator.spark.gateway import open_gateway
from tests.coordinator.spark.fake_context import Conf, Context, Scala, session


def gateway(**more: Any) -> ClassicGateway:
    return ClassicGateway(session(**more))


def test_slots_and_how_many_are_busy() -> None:
    assert gateway(registered=8).slots() == Slots(8, 3)


def test_a_spark_that_does_not_tell_costs_only_the_check() -> None:
    spark = session(registered=None)
    spark.sparkContext.statusTracker = None
    assert ClassicGateway(spark).slots() == Slots(0, -1)


def test_a_context_that_was_stopped_meanwhile_is_no_mistake_of_ours() -> None:
    """R6: a user may stop the session under a run; the failures of its jobs are still told."""
    spark = session()
    spark.sparkContext._jsc = None
    found = ClassicGateway(spark)
    assert found.slots().total == 0
    assert found.registered_slots() == 0
    assert found.active_tasks("tag") is None
    found.cancel("tag")


def test_what_may_change_is_read_from_the_session_and_the_rest_from_the_context() -> None:
    spark = session(conf={"spark.task.cpus": "2", "spark.sql.x": "old"})
    spark.conf = Conf({"spark.task.cpus": "3", "spark.sql.x": "new"})
    found = ClassicGateway(spark)
    assert (found.conf("spark.task.cpus"), found.conf("spark.sql.x")) == ("2", "new")
    assert (found.conf("spark.executor.cores"), found.conf("spark.sql.y")) == ("", "")


def test_a_session_without_a_driver_host_has_none() -> None:
    assert gateway().driver_host == ""
    assert gateway(conf={"spark.driver.host": "10.0.0.1"}).driver_host == "10.0.0.1"


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
        open_gateway(StoppedContext(jsc), has_daemon=False)


def test_something_else_than_a_session_is_refused() -> None:
    with pytest.raises(SparkUnusable, match="expected a SparkSession or a SparkContext, got 3"):
        open_gateway(3, has_daemon=False)
