"""What is checked on the driver before any job is started (R1). Spark's side is a stand-in: what
it says is data here."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core.errors import InvalidRun, NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles
from coordinator.spark import preflight
from tests.coordinator.spark.fake_spark import FakeSpark


def session(master: str = "spark://m:7077", conf: dict[str, str] | None = None, **more: Any) -> Any:
    return FakeSpark(master=master, conf=conf or {}, **more)


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
        ("spark://m:7077", {"spark.cores.max": "9", "spark.task.cpus": "2"}, 4),
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
    conf = {"spark.default.parallelism": "2"}
    found = preflight.capacity(session(master, conf, registered=8))
    assert (found.slots, found.is_final) == (8, True)
    unknown = preflight.capacity(session(master))
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


def test_members_that_hold_no_task_need_executors_that_stay() -> None:
    """R12: dynamic allocation removes executors that look idle."""
    dynamic = session(conf={"spark.dynamicAllocation.enabled": "true"})
    with pytest.raises(InvalidRun, match=r"set spark\.dynamicAllocation\.enabled to false"):
        preflight.check_anchor(dynamic, "executor")
    preflight.check_anchor(dynamic, "task")
    preflight.check_anchor(session(), "executor")


@pytest.mark.parametrize(
    ("slots", "is_fed", "asked", "chosen"),
    [
        (3, True, None, "task"),
        (2, True, None, "executor"),
        (2, False, None, "task"),
        (2, True, "task", "task"),
        (3, True, "executor", "executor"),
    ],
)
def test_members_leave_their_slots_when_nobody_else_could_feed_them(
    slots: int, is_fed: bool, asked: str | None, chosen: str
) -> None:
    """F5: two members on so many slots."""
    found = session(f"local-cluster[1,{slots},1024]")
    assert preflight.choose_anchor(found, Roles(worker=2), asked, is_fed=is_fed) == chosen


def test_slots_that_may_still_come_leave_members_where_they_are() -> None:
    assert preflight.choose_anchor(session("yarn"), Roles(worker=2), None, is_fed=True) == "task"
