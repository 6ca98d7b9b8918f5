"""What is refused before any job is started: arguments, columns, and Sparks that feed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import types as t

from coordinator.core.errors import FeedMismatch, InvalidRun, NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles
from coordinator.spark.feed import consumers, preflight, schema
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import DataFrame, FakeSpark, view

TWO = view(Roles(worker=2))


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, None, "3"])
def test_epochs_are_a_number_of_at_least_one(epochs: Any) -> None:
    """F9: 0 epochs used to mean 10."""
    with pytest.raises(InvalidRun, match="num_epochs"):
        preflight.check_epochs(epochs)


@pytest.mark.parametrize("feed", ["", "a/b", "a b", "-x", "x" * 65, None, 3])
def test_a_feed_has_a_name_that_can_be_a_part_of_others(feed: Any) -> None:
    with pytest.raises(InvalidRun, match="a feed's name has"):
        preflight.check_feed(feed, 600.0)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidRun, match="feed_timeout"):
        preflight.check_feed("input", timeout)


class DStream:
    __module__ = "pyspark.streaming.dstream"


class PandasOnSpark:
    __module__ = "pyspark.pandas.frame"


@pytest.mark.parametrize(
    "data, hint",
    [
        ([1, 2], "must be a DataFrame or an RDD of Spark's, not list"),
        (DStream(), "Structured Streaming"),
        (PandasOnSpark(), r"to_spark\(\)"),
    ],
)
def test_what_is_no_data_of_spark_s_is_refused_with_a_way_out(data: Any, hint: str) -> None:
    with pytest.raises(InvalidRun, match=hint):
        preflight.check_data(data)


def test_nothing_is_asked_of_spark_for_a_call_that_cannot_work(scene: Make) -> None:
    made = scene()
    refused: list[Callable[[], Any]] = [
        lambda: made.feeding.train(DataFrame(1), 0),
        lambda: made.feeding.train([1], 1),
        lambda: made.feeding.train(DataFrame(1), 1, feed="a/b"),
        lambda: made.feeding.train(DataFrame(1, is_streaming=True), 1),
    ]
    for call in refused:
        with pytest.raises(InvalidRun):
            call()
    assert (made.spark.jobs, made.keeper.calls) == ([], [])


def test_a_run_that_reads_its_data_itself_says_how_to_be_fed(scene: Make) -> None:
    made = scene()
    made.feeding.key = None
    with pytest.raises(InvalidRun, match=r"input_mode=InputMode\.SPARK"):
        made.feeding.train(DataFrame(1), 1)


# --- who is fed -----------------------------------------------------------------------------------


def test_a_run_without_workers_has_nobody_to_feed() -> None:
    with pytest.raises(InvalidRun, match="nobody to feed"):
        consumers.fed_members(Roles(chief=1, ps=1))


def test_evaluators_are_not_fed() -> None:
    found = consumers.fed_members(Roles(chief=1, worker=1, evaluator=1))
    assert list(map(str, found)) == ["chief:0", "worker:0"]


def test_a_path_too_long_for_a_socket_is_left_out() -> None:
    [member, _] = TWO.members
    found = consumers.endpoint(TWO, member.id)
    assert (found.path, found.boot_id) == ("/w/worker-0/feed", "boot")
    assert (found.host, found.port) == ("10.0.0.1", 4000)
    assert member.executor is not None
    long = view(Roles(worker=2))
    object.__setattr__(long.members[0].executor, "directory", "/w/" + "x" * 100)
    assert consumers.endpoint(long, member.id).path == ""


def test_a_member_without_a_port_takes_no_rows() -> None:
    with pytest.raises(InvalidRun, match="worker:0 takes no rows"):
        consumers.endpoint(view(Roles(worker=1), feed_port=0), TWO.members[0].id)


# --- Spark ----------------------------------------------------------------------------------------


def test_speculation_is_refused_with_the_setting() -> None:
    """F2."""
    spark: Any = FakeSpark(spark_speculation="true")
    with pytest.raises(SparkUnusable, match=r"spark\.speculation to false"):
        preflight.check_spark(spark, TWO, "task")


def test_members_that_hold_every_slot_leave_none_to_feed_from() -> None:
    """F5."""
    spark: Any = FakeSpark(master="local[2]")
    with pytest.raises(NotEnoughSlots, match=r'the 2 members hold .* has 2 .*anchor="executor"'):
        preflight.check_spark(spark, TWO, "task")
    preflight.check_spark(spark, TWO, "executor")
    enough: Any = FakeSpark(master="local[3]")
    preflight.check_spark(enough, TWO, "task")
    unknown: Any = FakeSpark(master="yarn")
    preflight.check_spark(unknown, TWO, "task")


# --- columns --------------------------------------------------------------------------------------


def struct(**columns: t.DataType) -> t.StructType:
    return t.StructType([t.StructField(name, kind) for name, kind in columns.items()])


def test_all_columns_that_cannot_be_fed_are_named_with_what_to_do() -> None:
    a_map = t.MapType(t.StringType(), t.LongType())
    columns = struct(
        m=a_map,
        n=t.NullType(),
        i=t.YearMonthIntervalType(),
        deep=t.ArrayType(struct(inner=a_map)),
        good=t.LongType(),
    )
    with pytest.raises(FeedMismatch) as raised:
        schema.check_columns(columns)
    text = str(raised.value)
    for part in ("m (map<string,bigint>: ", "n (void: ", "i (interval", "deep[].inner (map"):
        assert part in text
    assert "good" not in text


def test_what_can_be_fed_passes() -> None:
    vector = VectorUDT()
    kinds = (t.BinaryType(), t.TimestampType(), t.DecimalType(10, 2), t.DayTimeIntervalType())
    lists = t.ArrayType(t.ArrayType(t.FloatType()))
    named = {f"c{number}": kind for number, kind in enumerate((vector, lists, *kinds))}
    schema.check_columns(struct(**named, s=struct(x=t.BooleanType())))


def test_columns_are_told_apart_by_their_names() -> None:
    twice = t.StructType([t.StructField("x", t.LongType()), t.StructField("x", t.LongType())])
    with pytest.raises(FeedMismatch, match="several columns of one name: x"):
        schema.check_columns(twice)
    with pytest.raises(FeedMismatch, match="no columns"):
        schema.check_columns(t.StructType([]))
