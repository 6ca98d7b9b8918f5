"""What the agent says to start a member's process is what that understands."""

from __future__ import annotations

from dataclasses import replace

from executor_agent.context import Start
from executor_agent.core.start_command import start_command
from tests.agent.test_agent_config import CONFIG

SPEC = {"chief": ("a:1",), "worker": ("b:1",)}


def test_a_start_is_understood_as_it_was_meant() -> None:
    config = replace(CONFIG, member="worker:0", model_dir="/m", created_at=1.5, gpus=2)
    start = Start.parse(start_command(config, 3, SPEC, local_dir="/l", gpus=("GPU-b", "GPU-a")))
    assert start.grace == config.grace
    assert start.env == {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    told = start.assignment
    assert (told.job_name, told.task_index, told.generation) == ("worker", 0, 3)
    assert (told.run_id, told.executor_id, told.created_at) == ("run", "3", 1.5)
    assert (told.local_dir, told.log_dir, told.model_dir) == ("/l", None, "/m")
    assert told.cluster_spec == SPEC
    assert told.gpus == ("GPU-b", "GPU-a")


def test_without_gpus_the_environment_stays_as_it_is() -> None:
    """It names no GPU from the beginning."""
    start = Start.parse(start_command(CONFIG, 1, {"worker": ("b:1",)}, local_dir="/l", gpus=()))
    assert start.env == {}
    assert start.assignment.gpus == ()
