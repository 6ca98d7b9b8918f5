"""The values of supervision: what is written is read again, and nonsense is refused."""

from __future__ import annotations

import json

import pytest

from executor_agent.core.oom import judge_oom
from executor_agent.core.supervision import (
    ExitFacts,
    SentinelConfig,
    Survivor,
)

CONFIG = SentinelConfig(
    member="worker:1",
    run_id="run",
    incarnation="1",
    marker="m",
    directory="/d",
    claim="/c",
    watch={"task": (1, 0.5)},
    grace=2.0,
    agent_argv=("agent",),
    agent_env={"A": "1"},
    member_argv=("member", "x"),
    member_env={},
    cwd="/",
    shared_dead_man_read_fd=3,
    shared_dead_man_write_fd=4,
    agent_config_fd=5,
    payload_fd=6,
    lifeline_fd=7,
    task_dead_man_fd=8,
)


def test_a_configuration_survives_the_way_through_json() -> None:
    assert SentinelConfig.from_json(CONFIG.to_json()) == CONFIG
    watch = {**CONFIG.watch, "executor": (2, 0.5)}
    detached = CONFIG.replace(watch=watch, task_dead_man_fd=None, voice_fd=9)
    assert SentinelConfig.from_json(detached.to_json()) == detached
    assert 9 in detached.descriptors()


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"marker": ""}, "marker is empty"),
        ({"grace": -1}, "grace is not a duration"),
        ({"grace": "2"}, "wrong type"),
        ({"directory": "d"}, "directory is not an absolute path"),
        ({"watch": {"cat": [1, 0.5]}}, "unknown anchor 'cat'"),
        ({"watch": {"task": [0, 0.5]}}, "not a process"),
        ({"watch": {"task": 1}}, "wrong type"),
        ({"member_argv": []}, "member_argv is empty"),
        ({"member_argv": "member"}, "wrong type"),
        ({"agent_env": {"A": 1}}, "wrong type"),
        ({"payload_fd": 5}, "named twice"),
        ({"payload_fd": 1}, "collides with stdio"),
        ({"payload_fd": None}, "wrong type"),
        ({"voice_fd": 9}, "D2 would end a member that was handed over"),
        ({"voice_fd": 9, "task_dead_man_fd": None, "lifeline_fd": None}, "without a lifeline"),
        ({"voice_fd": 9, "task_dead_man_fd": None}, "no executor to hand over to"),
        ({"surprise": 1}, "unknown fields ['surprise']"),
    ],
)
def test_a_broken_configuration_names_what_is_wrong(
    change: dict[str, object], complaint: str
) -> None:
    raw = {**json.loads(CONFIG.to_json()), **change}
    with pytest.raises(ValueError) as refused:
        SentinelConfig.from_json(json.dumps(raw))
    assert complaint in str(refused.value)


FACTS = ExitFacts(
    member="worker:1",
    run_id="run",
    incarnation="1",
    pid=7,
    exit_code=None,
    signal=9,
    killed_by_us=True,
    reason="task died",
    survivors=(Survivor(8, "python"),),
    proof="none",
    max_rss_bytes=1,
    user_seconds=0.1,
    system_seconds=0.2,
    stop_seconds=0.3,
    ended_at=4.0,
)


def test_exit_facts_survive_the_way_through_json_and_additions_of_a_newer_version() -> None:
    assert ExitFacts.from_json(FACTS.to_json()) == FACTS
    assert ExitFacts.from_dict({**FACTS.to_dict(), "event": "exited"}) == FACTS


def test_exit_facts_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="both exit code and signal"):
        FACTS.replace(exit_code=1)
    with pytest.raises(ValueError, match="proven gone, yet survivors"):
        FACTS.replace(proof="kernel")
    with pytest.raises(ValueError, match="incomplete"):
        ExitFacts.from_dict({})


@pytest.mark.parametrize(
    "signal, killed_by_us, before, after, verdict",
    [
        (9, False, 0, 1, "yes"),
        (9, False, 1, 1, "no"),
        (9, False, None, 1, "unknown"),
        (9, True, 0, 1, "unknown"),
        (None, False, 0, 1, "unknown"),
        (None, False, None, None, "no"),
        (11, False, 0, 0, "no"),
    ],
)
def test_out_of_memory_is_convicted_on_evidence_only(
    signal: int | None, killed_by_us: bool, before: int | None, after: int | None, verdict: str
) -> None:
    """E1: a rise of the shared counter and a SIGKILL that nobody of ours has sent."""
    assert judge_oom(signal, killed_by_us, before, after) == verdict
