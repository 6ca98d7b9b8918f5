"""What a Spark task tells its agent of GPUs, and what a member sees of them before it has any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor_agent import member_directory
from executor_agent.core.agent_config import AgentConfig
from executor_agent.member_launch import MemberLaunch
from executor_agent.spark_task import MemberTask, gpu_addresses

TASK = MemberTask(
    members=("worker:0", "ps:0"),
    run_id="run",
    coordinator="127.0.0.1:1",
    token="token",
    payload=b"",
    grace={"worker": 5.0, "ps": 0.0},
    preload=(),
    connect_timeout=1.0,
    gpus={"worker": 2, "ps": 0},
    created_at=5.0,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(member_directory.HOME_VARIABLE, str(tmp_path / "home"))


def launch(member: str, directory: Path, assigned: tuple[str, ...] | None) -> MemberLaunch:
    return TASK._launch(member, "1", directory, 1, None, assigned)


def config(launched: MemberLaunch) -> AgentConfig:
    return AgentConfig.from_json(launched.agent_config)


@pytest.mark.parametrize("assigned", [None, (), ("0", "GPU-1")])
def test_the_agent_is_told_what_its_role_asked_for_and_what_spark_assigned(
    tmp_path: Path, assigned: tuple[str, ...] | None
) -> None:
    """G6: None is not the same as nothing."""
    found = config(launch("worker:0", tmp_path, assigned))
    assert (found.gpus, found.gpu_addresses, found.created_at) == (2, assigned, 5.0)
    assert config(launch("ps:0", tmp_path, assigned)).gpus == 0


@pytest.mark.parametrize("member", ["worker:0", "ps:0"])
def test_no_member_sees_a_gpu_before_one_is_leased_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """G3; and G6: the agent sees what this container may use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    launched = launch(member, tmp_path, None)
    assert launched.member_env["CUDA_VISIBLE_DEVICES"] == ""
    assert launched.agent_env["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_run_that_asked_for_no_gpus_has_none(tmp_path: Path) -> None:
    launched = replace(TASK, gpus={})._launch("worker:0", "1", tmp_path, 1)
    assert config(launched).gpus == 0
    assert launched.member_env["CUDA_VISIBLE_DEVICES"] == ""


def test_addresses_are_those_of_spark_s_resource_called_gpu() -> None:
    gpu = SimpleNamespace(name="gpu", addresses=["1", "0"])
    fpga = SimpleNamespace(name="fpga", addresses=["f0"])
    assert gpu_addresses({"gpu": gpu, "fpga": fpga}) == ("1", "0")
    assert gpu_addresses({"fpga": fpga}) is None
    assert gpu_addresses({}) is None
