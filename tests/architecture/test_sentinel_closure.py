"""What the sentinel loads: a small trusted base stays small only if every addition is a decision.

Whatever is loaded delays the start of every member, and can fail or change under the one process
that has to work when all others do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

OURS = {
    "executor_agent",
    "executor_agent.anchors",
    "executor_agent.claims",
    "executor_agent.core",
    "executor_agent.core.claim",
    "executor_agent.core.decoding",
    "executor_agent.core.stop_events",
    "executor_agent.core.stop_sequence",
    "executor_agent.core.record",
    "executor_agent.core.story",
    "executor_agent.core.supervision",
    "executor_agent.exit_record",
    "executor_agent.kill_rounds",
    "executor_agent.linux",
    "executor_agent.parent_thread",
    "executor_agent.processes",
    "executor_agent.sentinel",
    "executor_agent.spawn",
    "executor_agent.supervision_log",
}
# Heavy or with threads of their own. An import of theirs would be an accident.
NEVER = {"asyncio", "concurrent", "logging", "multiprocessing", "ssl", "http", "email", "pickle"}


def loaded() -> set[str]:
    """Without ``site``, whose .pth files load what is an environment's and not ours."""
    code = "import executor_agent.sentinel, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)) - {"__main__"}


def test_the_sentinel_loads_the_standard_library_and_a_list_of_ours() -> None:
    modules = loaded()
    ours = {name for name in modules if name.partition(".")[0] in ("executor_agent", "coordinator")}
    assert ours == OURS
    packages = {name.partition(".")[0] for name in modules - ours}
    assert packages <= sys.stdlib_module_names


def test_the_sentinel_loads_nothing_heavy() -> None:
    packages = {name.partition(".")[0] for name in loaded()}
    assert not packages & NEVER
