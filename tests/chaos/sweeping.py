"""The sweep, for rows that need it: by the next agent on the host, or by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.chaos import driving, proc
from tests.chaos.proc import Process, Watch
from tests.chaos.row import Row
from tests.chaos.scene import NotPerformed, Plan, Scene, begin
from tests.chaos.stage import Stages

BOUND = 2000.0
"""Milliseconds that the sweep may take, from its start to gone."""

_PATIENCE = 10.0
_NEXT = Plan("quiet", (), {"worker": 1}, "task", 0.0, False)


def sweep(
    stages: Stages, row: Row, scene: Scene, watch: Watch, left: list[Process]
) -> float | None:
    """Has the row's sweep done, and waits for those who are left. Milliseconds from its start until
    the last of them was gone; None when somebody stays."""
    began_at = _by_hand(scene) if row.sweep == "reap" else _by_next_agent(stages, row, scene)
    if watch.wait(_PATIENCE):
        return None
    return 1000 * max(0.0, max(watch.gone[each] for each in left) - began_at)


def _by_hand(scene: Scene) -> float:
    """Of this run alone: others on the machine may have leftovers, too."""
    began_at = proc.now()
    command = [str(Path(sys.executable).with_name("tflease")), "reap", "--yes"]
    done = subprocess.run(
        [*command, "--run", scene.run_id], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0 and done.stderr:
        raise NotPerformed(f"tflease reap: {done.stderr.strip()[-200:]}")
    return began_at


def _by_next_agent(stages: Stages, row: Row, scene: Scene) -> float:
    """Another run's agent; when it was started. The application is another one where the act has
    taken the first."""
    if row.spoils:
        stages.drop()
    stage = stages.get(row.topology, row.settings)
    following = begin(stage, _NEXT, f"{scene.tag}-next", Path(f"{scene.folder}-next"))
    try:
        return following.actors["agent"].started_at
    finally:
        stage.call(driving.end, following.run_id)
