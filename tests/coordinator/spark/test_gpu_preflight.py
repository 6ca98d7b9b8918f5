"""What is checked of GPUs before any job is started (R1, G4). Spark's side is a stand-in."""

from __future__ import annotations

import pytest

from coordinator.core.errors import NotEnoughSlots, SparkUnusable
from coordinator.core.model import Roles, RunSpec
from coordinator.spark.gpu_preflight import check_gpus
from coordinator.spark.preflight import capacity
from coordinator.spark.profiles import EXECUTOR_AMOUNT, TASK_AMOUNT
from tests.coordinator.spark.fake_spark import FakeSpark

INSTANCES = "spark.executor.instances"
CORES = "spark.executor.cores"
DYNAMIC = "spark.dynamicAllocation.enabled"
MOST = "spark.dynamicAllocation.maxExecutors"
CLUSTER = "local-cluster[2,4,1024]"


def check(
    roles: Roles,
    gpus: Roles,
    master: str = CLUSTER,
    registered: int = 0,
    conf: dict[str, str] | None = None,
) -> None:
    spark = FakeSpark(master=master, conf=conf or {}, registered=registered)
    check_gpus(spark, RunSpec(roles=roles, gpus=gpus))


def test_more_for_one_member_than_an_executor_has_is_refused_with_what_to_set() -> None:
    """G4: Spark would wait for ever."""
    with pytest.raises(NotEnoughSlots) as caught:
        check(Roles(worker=1), Roles(worker=2), conf={EXECUTOR_AMOUNT: "1"})
    text = str(caught.value)
    assert "each worker needs 2 GPUs, and an executor has 1" in text
    assert f"set {EXECUTOR_AMOUNT}=2" in text
    assert caught.value.metadata == {"wanted": "2", "found": "1"}


@pytest.mark.parametrize("master", ["local[4]", "local[*]", "local"])
def test_an_amount_for_tasks_hangs_local_spark_and_is_refused(master: str) -> None:
    conf = {TASK_AMOUNT: "1", EXECUTOR_AMOUNT: "1"}
    with pytest.raises(SparkUnusable, match=f"{TASK_AMOUNT}=1 every task waits .* unset it"):
        check(Roles(worker=1), Roles(), master, conf=conf)


@pytest.mark.parametrize("conf", [{}, {TASK_AMOUNT: "0"}, {EXECUTOR_AMOUNT: "1"}])
def test_otherwise_the_gpus_of_this_machine_are_the_agent_s_to_find(conf: dict[str, str]) -> None:
    check(Roles(worker=2), Roles(worker=8), "local[4]", conf=conf)


@pytest.mark.parametrize("executor", ["", "0"])
def test_where_spark_manages_no_gpus_the_agents_find_them(executor: str) -> None:
    check(Roles(worker=2), Roles(worker=8), conf={EXECUTOR_AMOUNT: executor})


def test_a_cluster_manager_without_profiles_is_named() -> None:
    with pytest.raises(SparkUnusable, match=f"not with master mesos://m.*set {TASK_AMOUNT}=1"):
        check(Roles(worker=1), Roles(worker=1), "mesos://m", conf={EXECUTOR_AMOUNT: "1"})
    own = {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"}
    everybody = Roles(chief=1, worker=1, ps=1, evaluator=1)
    check(everybody, everybody, "mesos://m", conf=own)


@pytest.mark.parametrize(
    "master, conf",
    [
        (CLUSTER, {}),
        ("yarn", {INSTANCES: "2", CORES: "4"}),
        ("k8s://https://api", {DYNAMIC: "true", MOST: "2"}),
    ],
)
def test_more_than_all_executors_have_is_refused_with_the_numbers(
    master: str, conf: dict[str, str]
) -> None:
    """R1."""
    conf = {EXECUTOR_AMOUNT: "2", **conf}
    check(Roles(worker=4), Roles(worker=1), master, conf=conf)
    with pytest.raises(NotEnoughSlots) as caught:
        check(Roles(worker=5), Roles(worker=1), master, conf=conf)
    assert "needs 5 GPUs at once (1 for each of 5 worker), but Spark has 4" in str(caught.value)
    assert caught.value.metadata == {"needed": "5", "gpus": "4"}


def test_a_task_has_its_gpus_in_one_executor() -> None:
    """2 executors with 3 each seat 2 members with 2 each, not 3."""
    conf = {EXECUTOR_AMOUNT: "3"}
    check(Roles(worker=2), Roles(worker=2), conf=conf)
    with pytest.raises(NotEnoughSlots, match="2 for each of 3 worker"):
        check(Roles(worker=3), Roles(worker=2), conf=conf)


def test_members_without_gpus_do_not_count() -> None:
    """G3."""
    conf = {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"}
    check(Roles(worker=2, ps=3), Roles(worker=1), conf=conf)


def test_but_where_every_task_takes_one_they_do() -> None:
    """With dynamic allocation all members share a profile; without gpus=... nothing is changed."""
    conf = {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"}
    with pytest.raises(NotEnoughSlots, match=f"set {TASK_AMOUNT}=0"):
        check(Roles(worker=3), Roles(), conf=conf)
    with pytest.raises(NotEnoughSlots, match=r"1 for each of 2 worker \+ 1 for each of 1 ps"):
        check(
            Roles(worker=2, ps=1),
            Roles(worker=1),
            "yarn",
            conf={**conf, DYNAMIC: "true", MOST: "2"},
        )


def test_tasks_that_share_a_gpu_are_counted_by_it() -> None:
    """Three tasks of 0.3 on each GPU; the rest of it is nobody's."""
    conf = {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "0.3"}
    check(Roles(worker=6), Roles(), conf=conf)
    with pytest.raises(NotEnoughSlots):
        check(Roles(worker=7), Roles(), conf=conf)


@pytest.mark.parametrize(
    "master, conf, registered",
    [
        ("spark://m:7077", {}, 8),
        ("spark://m:7077", {INSTANCES: "1", CORES: "1"}, 0),
        ("yarn", {}, 0),
        ("yarn", {INSTANCES: "1", CORES: "2"}, 8),
        ("yarn", {DYNAMIC: "true"}, 0),
    ],
)
def test_what_may_be_more_refuses_nobody(
    master: str, conf: dict[str, str], registered: int
) -> None:
    """R12."""
    conf = {EXECUTOR_AMOUNT: "1", **conf}
    check(Roles(worker=100), Roles(worker=1), master, registered, conf)


def test_slots_that_spark_counts_by_gpus_say_nothing_of_its_cores() -> None:
    """A parameter server beside two workers on two GPUs finds a core."""
    spark = FakeSpark(
        master="spark://m:7077",
        conf={EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"},
        registered=2,
        age=60,
    )
    assert not capacity(spark).is_final


def test_a_run_that_leaves_gpus_idle_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """G6: it trains on the CPU, and says so."""
    spark = FakeSpark(master=CLUSTER, conf={EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"})
    for _ in range(2):
        check_gpus(spark, RunSpec(roles=Roles(worker=1)))
    [record] = caplog.records
    assert f"{TASK_AMOUNT}=1" in record.getMessage()
    assert "gpus=Roles(worker=1)" in record.getMessage()


@pytest.mark.parametrize(
    "gpus, conf",
    [
        (Roles(worker=1), {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "1"}),
        (Roles(), {EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "0"}),
        (Roles(), {}),
    ],
)
def test_nobody_is_warned_where_no_gpu_lies_idle(
    gpus: Roles, conf: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    check(Roles(worker=1), gpus, conf=conf)
    assert caplog.records == []
