"""Who has the GPUs that Spark does not give to a member's task (G5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark.gpu_rivals import Rivals

WORKER = MemberId.parse("worker:0")
PS = MemberId.parse("ps:0")
TAKEN = {Role.WORKER: 1.0, Role.PS: 0.0}
MINE = RunId("mine")


def run(run_id: str, count: int = 2, phase: MemberPhase = MemberPhase.RUNNING) -> RunView:
    members = [MemberView(MemberId(Role.WORKER, index), phase, 0.0) for index in range(count)]
    return RunView(
        run_id=RunId(run_id),
        spec=RunSpec(roles=Roles(worker=count, ps=1), name="mnist"),
        phase=RunPhase.RUNNING,
        generation=1,
        members=(*members, MemberView(PS, phase, 0.0)),
        created_at=0.0,
        revision=1,
    )


@pytest.fixture
def application(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_another_run_of_the_application_is_named_with_its_members(application: str) -> None:
    Rivals(application, TAKEN).saw(run("other"))
    mine = Rivals(application, TAKEN)
    mine.saw(run("mine"))
    assert mine.explain(MINE, WORKER) == (
        "Spark assigns GPUs, and of this application run other (mnist) has some for "
        "worker:0, worker:1"
    )


def test_only_a_few_members_are_named(application: str) -> None:
    Rivals(application, TAKEN).saw(run("other", 7))
    text = Rivals(application, TAKEN).explain(MINE, WORKER)
    assert text.endswith("worker:4 and 2 more")


def test_a_member_whose_task_takes_no_gpu_waits_for_something_else(application: str) -> None:
    Rivals(application, TAKEN).saw(run("other"))
    assert Rivals(application, TAKEN).explain(MINE, PS) == ""
    assert Rivals(application, {}).explain(MINE, WORKER) == ""


@pytest.mark.parametrize(
    "other, taken",
    [
        (run("mine"), TAKEN),
        (run("other", phase=MemberPhase.EXPECTED), TAKEN),
        (run("other"), {Role.WORKER: 0.0, Role.PS: 0.0}),
    ],
    ids=["itself", "not there yet", "without GPUs"],
)
def test_who_has_no_gpu_of_spark_s_is_not_blamed(
    application: str, other: RunView, taken: dict[Role, float]
) -> None:
    Rivals(application, taken).saw(other)
    assert Rivals(application, TAKEN).explain(MINE, WORKER) == ""


def test_another_application_has_gpus_of_its_own(application: str) -> None:
    Rivals(application + ", another", TAKEN).saw(run("other"))
    assert Rivals(application, TAKEN).explain(MINE, WORKER) == ""


def test_a_run_is_forgotten_with_its_end(application: str) -> None:
    other = Rivals(application, TAKEN)
    other.saw(run("other"))
    other.saw(replace(run("other"), phase=RunPhase.SUCCEEDED))
    assert Rivals(application, TAKEN).explain(MINE, WORKER) == ""
    other.saw(run("other"))
    other.forget(RunId("other"))
    assert Rivals(application, TAKEN).explain(MINE, WORKER) == ""
