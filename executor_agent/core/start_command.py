"""The word by which a member's process is started: what ``context.Start`` reads. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from executor_agent.core.agent_config import AgentConfig


def start_command(
    config: AgentConfig,
    generation: int,
    cluster_spec: Mapping[str, Sequence[str]],
    *,
    local_dir: str,
    log_dir: str | None = None,
    gpus: Sequence[str],
    feed_port: int = 0,
) -> dict[str, Any]:
    """``log_dir``: what grows there is streamed to the driver. ``gpus``: UUIDs, whose claims go
    with it as descriptors. ``feed_port``: held for the process to take rows at, where the member is
    fed."""
    job_name, _, index = config.member.partition(":")
    return {
        "command": "start",
        "run_id": config.run_id,
        "generation": generation,
        "job_name": job_name,
        "task_index": int(index),
        "cluster_spec": {job: list(each) for job, each in cluster_spec.items()},
        "executor_id": config.executor_id,
        "local_dir": local_dir,
        "log_dir": log_dir,
        "model_dir": config.model_dir,
        "created_at": config.created_at,
        "grace": config.grace,
        "gpus": list(gpus),
        "env": environment_of(gpus),
        "feed_key": dict(config.feed_key) if config.feed_key is not None else None,
        "feed_port": feed_port,
    }


def environment_of(gpus: Sequence[str]) -> dict[str, str]:
    """By UUID: an index means another device in another container, and after another device has
    failed. Without GPUs nothing is said: until a start says otherwise CUDA sees none."""
    if not gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
