"""Which resource profile each role gets (G3). Spark's own objects are tried in tests/spark."""

from __future__ import annotations

import pytest

from coordinator.core.errors import SparkUnusable
from coordinator.core.model import Role, Roles
from coordinator.spark import profiles
from coordinator.spark.gateway import Profile
from coordinator.spark.profiles import EXECUTOR_AMOUNT, TASK_AMOUNT, GpuSettings
from tests.coordinator.spark.fake_spark import FakeSpark

ON_WORKERS = Roles(worker=1)


def settings(master: str = "yarn", **conf: str) -> GpuSettings:
    names = {
        "executor": EXECUTOR_AMOUNT,
        "task": TASK_AMOUNT,
        "cpus": "spark.task.cpus",
        "cores": "spark.executor.cores",
        "script": "spark.executor.resource.gpu.discoveryScript",
        "vendor": "spark.executor.resource.gpu.vendor",
        "dynamic": "spark.dynamicAllocation.enabled",
    }
    named = {names[key]: value for key, value in conf.items()}
    return GpuSettings.of(FakeSpark(master=master, conf=named))


@pytest.mark.parametrize("task", ["0", ""])
def test_members_with_gpus_get_a_profile_and_the_others_need_none(task: str) -> None:
    found = profiles.of_roles(ON_WORKERS, settings(executor="2", task=task, cpus="3"))
    assert found[Role.WORKER] == Profile(cpus=3, gpus=1)
    assert {found[role] for role in Role if role is not Role.WORKER} == {None}


@pytest.mark.parametrize("task", ["1", "0.25"])
def test_where_every_task_takes_a_gpu_the_others_get_a_profile_without(task: str) -> None:
    """G3: a parameter server must not take one away from a worker."""
    found = profiles.of_roles(ON_WORKERS, settings(executor="2", task=task))
    assert found[Role.PS] == Profile(cpus=1, gpus=0)


def test_where_a_task_has_what_a_member_needs_it_gets_no_profile() -> None:
    found = profiles.of_roles(ON_WORKERS, settings(executor="2", task="1"))
    assert found[Role.WORKER] is None


@pytest.mark.parametrize(
    "gpus, found",
    [
        (Roles(), settings(executor="2", task="1")),
        (ON_WORKERS, settings()),
        (ON_WORKERS, settings("local[4]", executor="2")),
        (ON_WORKERS, settings("local", executor="2")),
    ],
    ids=["nobody asked", "Spark manages no GPUs", "local[n]", "local"],
)
def test_nothing_changes_where_spark_has_no_say(gpus: Roles, found: GpuSettings) -> None:
    assert set(profiles.of_roles(gpus, found).values()) == {None}


def test_with_dynamic_allocation_all_members_share_one_profile_with_executors() -> None:
    """Each profile gets executors of its own there."""
    found = profiles.of_roles(
        Roles(chief=2, worker=1),
        settings(executor="4", cores="8", script="/gpus.sh", vendor="nvidia.com", dynamic="true"),
    )
    shared = Profile(1, 2, 4, 8, "/gpus.sh", "nvidia.com")
    assert set(found.values()) == {shared}


@pytest.mark.parametrize("task, is_enough", [("1", False), ("2", True), ("3", True)])
def test_with_dynamic_allocation_the_application_s_own_profile_may_do(
    task: str, is_enough: bool
) -> None:
    found = profiles.of_roles(
        Roles(chief=2, worker=1), settings(executor="4", task=task, dynamic="true")
    )
    assert (set(found.values()) == {None}) is is_enough


def test_what_spark_sets_aside_for_a_task_follows_from_its_profile() -> None:
    taken = profiles.taken(Roles(chief=1), settings(executor="2", task="0.5"))
    assert (taken[Role.CHIEF], taken[Role.PS]) == (1.0, 0.0)
    assert profiles.taken(Roles(), settings(executor="2", task="0.5"))[Role.PS] == 0.5


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_an_amount_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SparkUnusable, match=f"{EXECUTOR_AMOUNT}={text}: must be a number"):
        settings(executor=text)


@pytest.mark.parametrize(
    "master, has",
    [
        ("spark://m:7077", True),
        ("local-cluster[2,2,1024]", True),
        ("yarn", True),
        ("k8s://https://api", True),
        ("", True),
        ("mesos://m:5050", False),
    ],
)
def test_which_cluster_managers_have_profiles(master: str, has: bool) -> None:
    """A server that hides its master is asked to: it says no by itself."""
    assert settings(master).has_profiles is has


def test_spark_s_own_object_is_made_once_for_an_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To Spark another object is another profile, which gets other executors."""
    made: list[Profile] = []

    def make(profile: Profile) -> object:
        made.append(profile)
        return object()

    monkeypatch.setattr(profiles, "_make", make)
    one, two = Profile(1, 1), Profile(1, 2)
    first = profiles.build(one, "app of this test")
    assert profiles.build(one, "app of this test") is first
    assert profiles.build(two, "app of this test") is not first
    assert profiles.build(one, "another app of this test") is not first
    assert made == [one, two, one]
