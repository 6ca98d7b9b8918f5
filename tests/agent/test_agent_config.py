"""What the Spark task tells the agent arrives as it was sent, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from executor_agent.core.agent_config import AgentConfig

CONFIG = AgentConfig(
    coordinator="driver:7787",
    token="a secret",
    run_id="run",
    member="worker:0",
    incarnation="1-a",
    marker="run/worker:0/1-a",
    executor_id="3",
    directory="/tmp/member",
    claim="/tmp/claim.json",
    grace=5.0,
    connect_timeout=60.0,
)
TLS = {"ca": "an authority", "certificate": "ours", "key": "a key", "server_name": "it"}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, ports=(40000, 40003), network="10.2.0.0/24", has_log_dir=True),
        replace(CONFIG, gpus=2, gpu_addresses=("0", "GPU-1"), created_at=1.5),
        replace(CONFIG, gpu_addresses=()),
        replace(CONFIG, tls=TLS),
        replace(CONFIG, predecessor="1-a", preferred_ports=(40000, 40001)),
    ],
)
def test_a_configuration_arrives_as_it_was_sent(config: AgentConfig) -> None:
    assert AgentConfig.from_json(config.to_json()) == config
    assert AgentConfig.from_json(config.to_json().encode()) == config


def test_the_token_and_the_key_are_not_shown() -> None:
    shown = repr(replace(CONFIG, tls=TLS))
    assert "a secret" not in shown
    assert "a key" not in shown


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(CONFIG.to_json()), **values})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        changed(of_a_newer_version=1),
        changed(ports=[40000]),
        changed(ports=40000),
        changed(ports=[40003, 40000]),
        changed(ports=[0, 10]),
        changed(ports=[65000, 65536]),
        changed(ports=["a", "b"]),
        changed(gpus=-1),
        changed(gpus="many"),
        changed(gpu_addresses=1),
        changed(preferred_ports=7077),
        changed(preferred_ports=["any"]),
        changed(tls="a key"),
        changed(tls={"ca": 1}),
        changed(tls=[]),
    ],
)
def test_anything_but_a_complete_configuration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="broken agent configuration"):
        AgentConfig.from_json(text)
