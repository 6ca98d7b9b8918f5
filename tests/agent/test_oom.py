"""The evidence of out-of-memory kills."""

from __future__ import annotations

from pathlib import Path

from executor_agent.oom import oom_kill_count


def test_the_out_of_memory_counter_is_read_from_either_cgroup_version(tmp_path: Path) -> None:
    membership, hierarchy = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/docker/abc\n")
    assert oom_kill_count(membership, hierarchy) is None

    unified = hierarchy / "docker/abc/memory.events"
    unified.parent.mkdir(parents=True)
    unified.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_kill_count(membership, hierarchy) == 2

    # Seen from inside a container, the path that the kernel names does not exist.
    legacy = hierarchy / "memory/memory.oom_control"
    legacy.parent.mkdir(parents=True)
    legacy.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
    assert oom_kill_count(membership, hierarchy) == 7

    assert oom_kill_count(tmp_path / "nothing", hierarchy) is None
