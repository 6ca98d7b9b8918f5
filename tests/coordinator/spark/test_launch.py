"""What is submitted to Spark for a run: its jobs, and what each of their tasks takes."""

from __future__ import annotations

from functools import partial

import pytest

from coordinator.core import roster
from coordinator.core.model import Roles
from coordinator.spark.gateway import Profile
from coordinator.spark.launch import Launch
from coordinator.spark.profiles import EXECUTOR_AMOUNT, TASK_AMOUNT
from tests.coordinator.spark.fake_spark import FakeSpark
from tests.coordinator.spark.test_options import options

CONF = {"spark.driver.host": "127.0.0.1", EXECUTOR_AMOUNT: "1", TASK_AMOUNT: "0.5"}
WITH, WITHOUT = Profile(1, 1), Profile(1, 0)


def submitted(
    roles: Roles, conf: dict[str, str], jobs: int
) -> dict[tuple[str, ...], Profile | None]:
    """The members of each job, and its profile."""
    spark = FakeSpark(conf=conf, master="yarn")
    launch = Launch(spark, options(roles=roles, gpus=Roles(worker=1)), b"", None)
    try:
        launch.start()
        spark.wait_for_jobs(jobs)
    finally:
        launch.end(0.0)
    return {job.task.members: job.profile for job in spark.jobs}


def test_each_member_s_job_has_the_profile_of_its_role() -> None:
    """G3."""
    assert submitted(Roles(worker=2, ps=1), CONF, 3) == {
        ("ps:0",): WITHOUT,
        ("worker:0",): WITH,
        ("worker:1",): WITH,
    }


def test_without_gpus_of_spark_s_no_job_has_one() -> None:
    found = submitted(Roles(worker=1, ps=1), {"spark.driver.host": "127.0.0.1"}, 2)
    assert set(found.values()) == {None}


def test_members_that_share_a_job_share_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large runs have jobs with several members."""
    monkeypatch.setattr(roster, "jobs", partial(roster.jobs, max_jobs=1))
    assert submitted(Roles(worker=2, ps=2), CONF, 2) == {
        ("ps:0", "ps:1"): WITHOUT,
        ("worker:0", "worker:1"): WITH,
    }
