"""What feeds ask of a session: small batches, a profile, what it says of the order of rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.spark import profiles
from coordinator.spark.feed import arrow_batches, determinism
from coordinator.spark.feed.arrow_batches import NAME, VALUE
from coordinator.spark.gateway import Profile
from coordinator.spark.profiles import GpuSettings

SETTINGS = {NAME: VALUE}


class Conf:
    """Of a session. ``knows``: whether this Spark has a bound in bytes."""

    def __init__(self, knows: bool = True, **values: str) -> None:
        self.values = {name.replace("__", "."): value for name, value in values.items()}
        self._knows = knows

    def get(self, name: str, default: str | None) -> str | None:
        return self.values.get(name, default)

    def set(self, name: str, value: str) -> None:
        self.values[name] = value

    def unset(self, name: str) -> None:
        del self.values[name]

    def isModifiable(self, name: str) -> bool:
        return self._knows


def session(name: str, conf: Conf) -> Any:
    return SimpleNamespace(session_id=name, conf=conf)


def test_batches_are_small_until_the_last_feed_of_the_session_ends() -> None:
    conf, other = Conf(), Conf()
    with arrow_batches.small(session("one", conf)):
        with arrow_batches.small(session("one", conf)), arrow_batches.small(session("2", other)):
            assert conf.values == other.values == SETTINGS
        assert (conf.values, other.values) == (SETTINGS, {})
    assert conf.values == {}


def test_a_size_that_the_user_has_set_stays() -> None:
    conf = Conf()
    conf.values[NAME] = "77"
    with arrow_batches.small(session("one", conf)):
        assert conf.values == {NAME: "77"}
    assert conf.values == {NAME: "77"}


def test_a_spark_without_a_bound_in_bytes_is_left_alone() -> None:
    conf = Conf(knows=False)
    with arrow_batches.small(session("one", conf)):
        assert conf.values == {}


def test_a_session_that_hides_its_settings_is_fed_from_all_the_same() -> None:
    hidden: Any = SimpleNamespace()  # anything that is asked of it raises
    with arrow_batches.small(session("one", hidden)):
        pass
    conf = Conf()
    with arrow_batches.small(session("one", conf)):
        conf.values.clear()  # so that nothing can be put back


# --- the order of rows ----------------------------------------------------------------------------


def level(name: str) -> Any:
    return SimpleNamespace(outputDeterministicLevel=lambda: SimpleNamespace(toString=lambda: name))


def frame(plan: str, its_level: str = "DETERMINATE", *, functions: bool = True) -> Any:
    def execute() -> Any:
        assert "Adaptive" not in plan, "it would run jobs"
        return level(its_level)

    execution = SimpleNamespace(
        executedPlan=lambda: SimpleNamespace(toString=lambda: plan),
        optimizedPlan=lambda: SimpleNamespace(deterministic=lambda: functions),
        toRdd=execute,
    )
    return SimpleNamespace(_jdf=SimpleNamespace(queryExecution=lambda: execution))


SCAN = "*(1) Project [x#1]\n+- FileScan parquet [x#1,Exchange#2]"
SHUFFLE = "AdaptiveSparkPlan isFinalPlan=false\n+- Exchange RoundRobinPartitioning(3)\n   +- Scan"
CACHED = "InMemoryTableScan [x#1]\n   +- InMemoryRelation\n      :  +- Exchange hashpartitioning"
JOIN = "AdaptiveSparkPlan isFinalPlan=false\n+- BroadcastHashJoin\n   +- BroadcastExchange Hashed"


@pytest.mark.parametrize(
    "data, expected",
    [
        (frame(SCAN), True),
        (frame(SCAN, "INDETERMINATE"), False),
        (frame(SCAN, functions=False), False),
        (frame(SHUFFLE), False),
        (frame(CACHED), False),
        (frame(JOIN), None),
        (SimpleNamespace(_jrdd=SimpleNamespace(rdd=lambda: level("DETERMINATE"))), True),
        (SimpleNamespace(_jrdd=SimpleNamespace(rdd=lambda: level("UNORDERED"))), False),
        (SimpleNamespace(_jrdd=SimpleNamespace(rdd=lambda: 3)), None),
        (SimpleNamespace(), None),
    ],
    ids=[
        "scan",
        "random",
        "udf",
        "shuffle",
        "cached",
        "join",
        "rdd",
        "shuffled-rdd",
        "odd",
        "connect",
    ],
)
def test_spark_knows_whether_rows_keep_their_order(data: Any, expected: bool | None) -> None:
    """F2."""
    assert determinism.level(data) is expected
    assert determinism.is_deterministic(data, None) is (expected is True)
    assert determinism.is_deterministic(data, True) is True
    assert determinism.is_deterministic(data, False) is False


# --- profiles -------------------------------------------------------------------------------------

ON_A_CLUSTER = {"per_executor": 2, "per_task": 1.0, "master": "spark://m:7077"}


@pytest.mark.parametrize(
    "settings, expected",
    [
        (GpuSettings(), None),
        (GpuSettings(**ON_A_CLUSTER), Profile(cpus=1.0)),
        (GpuSettings(**{**ON_A_CLUSTER, "per_task": 0.0}), None),
        (GpuSettings(**{**ON_A_CLUSTER, "master": "local[2]"}), None),
        (GpuSettings(**ON_A_CLUSTER, is_dynamic=True), None),
    ],
)
def test_feeders_take_no_gpu_from_members(settings: GpuSettings, expected: Profile | None) -> None:
    assert profiles.of_feeders(settings) == expected
