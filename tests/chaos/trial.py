"""One repetition of a row: set the scene, act, and watch who goes and who stays."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import driving, proc, sweeping
from tests.chaos.driving import first_line
from tests.chaos.proc import Entry, Process
from tests.chaos.row import Row
from tests.chaos.scene import NotPerformed, Plan, Scene, begin
from tests.chaos.stage import Stage, Stages, kill_orphaned_workers

_LATE = 0.5
"""Seconds after all were gone until the last look for somebody who was missed."""

_END_LIMIT = 15.0
"""Seconds for what a run had started anew to go, once the driver has ended the run."""

_SWEEP_ROW_LIMIT = 3.0


@dataclass
class Outcome:
    """``gone``: milliseconds until the last of the tree was gone; None when somebody was left.
    ``survivors``: who was, at the end of the row's patience (in a row that needs the sweep: at the
    end of the sweep's). ``before_sweep``: who needed it. ``late``: who was only found by the scans
    after the end. ``sweep``: milliseconds from its start to gone."""

    gone: float | None = None
    survivors: list[str] = field(default_factory=list)
    before_sweep: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)
    sweep: float | None = None
    closed_by: str = ""
    noticed: str = ""
    told: str = ""
    error: str = ""


def perform(stages: Stages, row: Row, tag: str, folder: Path, innocents: list[Process]) -> Outcome:
    """Never leaves anybody: survivors are reported, then killed. Raises what kept the row from
    being performed."""
    stage = stages.get(row.topology, row.settings)
    scene: Scene | None = None
    other: Scene | None = None
    try:
        if row.beside:
            quiet = Plan("quiet", (), {"worker": 1}, "task", 5.0, False)
            other = begin(stage, quiet, f"{tag}-beside", Path(f"{folder}-beside"))
        scene = begin(stage, row.plan, tag, folder)
        others = [*innocents, *(other.tree if other is not None else ())]
        outcome = _observe(stages, row, scene)
        if not row.spoils:
            _end(stage, scene, outcome)
        _look_again(scene, outcome)
        outcome.harmed = [str(each.pid) for each in others if not proc.is_alive(each)]
        if row.happened is not None and (doubt := row.happened(scene, outcome.gone)):
            raise NotPerformed(doubt)
        outcome.noticed, proof = _tombstone(scene)  # a task that sweeps writes it last of all
        outcome.closed_by = _closed_by(outcome, proof)
        return outcome
    finally:
        for each in filter(None, (scene, other)):
            kill_debris(each.leftovers)
        kill_debris(lambda: [e for e in proc.scan().values() if e.lives and tag in e.command])
        kill_orphaned_workers()
        if other is not None and stage.is_usable:
            stage.call(driving.end, other.run_id)
        if row.spoils == "cluster":
            stages.drop_cluster()
        elif row.spoils == "application":
            stages.drop()


def _observe(stages: Stages, row: Row, scene: Scene) -> Outcome:
    if row.prepare is not None:
        row.prepare(scene)
    for name in row.also:
        if name not in scene.actors:
            raise NotPerformed(f"there is no {name}")
        scene.tree[scene.actors[name]] = name
    outcome = Outcome()
    markers = scene.incarnations
    watch = proc.Watch(scene.tree)
    try:
        row.act(scene)
        left = watch.wait(_SWEEP_ROW_LIMIT if row.expects != "gone" else row.limit)
        for entry in _unknown(scene.stragglers(markers), scene):
            outcome.late.append(_describe(entry))
            scene.tree[entry.process] = "latecomer"
            watch.add(entry.process)
        left = watch.wait(1.0 if outcome.late else 0.0)
        if row.expects == "sweep" and not left:
            raise NotPerformed("nobody was left for the sweep")
        if row.expects != "gone" and left:
            outcome.before_sweep = [scene.tree[each] for each in left]
            outcome.sweep = sweeping.sweep(stages, row, scene, watch, left)
            left = watch.wait(0.0)
        outcome.survivors = [_name_survivor(scene, each) for each in left]
        if row.expects == "gap" and not any("hidden" in name for name in outcome.before_sweep):
            raise NotPerformed("the hidden helper did not survive: is the gap closed?")
        if not left:
            outcome.gone = 1000 * (max(watch.gone.values()) - scene.acted_at)
    finally:
        watch.close()
    return outcome


def _closed_by(outcome: Outcome, proof: str) -> str:
    if outcome.survivors:
        return "nobody"
    if outcome.before_sweep or "swept by" in outcome.noticed:  # Spark's retry is a next agent, too
        return "sweep"
    return "supervision" if proof else "kernel"


def _end(stage: Stage, scene: Scene, outcome: Outcome) -> None:
    """The driver ends the run; then nothing of it is left, replacements included."""
    if outcome.survivors:
        kill_debris(scene.leftovers)  # a frozen sentinel would keep the driver waiting
    if stage.pending is not None:
        with suppress(Exception):  # what it says is asked for below
            stage.pending.result(90)
        stage.pending = None
    outcome.told = stage.call(driving.end, scene.run_id)
    give_up_at = proc.now() + _END_LIMIT
    while (left := scene.leftovers()) and proc.now() < give_up_at:
        time.sleep(0.02)
    outcome.survivors += [f"after the end of the run: {_describe(each)}" for each in left]


def _look_again(scene: Scene, outcome: Outcome) -> None:
    if outcome.gone is None:
        return
    ready_at = scene.acted_at + outcome.gone / 1000 + _LATE
    time.sleep(max(0.0, ready_at - proc.now()))
    for entry in _unknown(scene.stragglers(()), scene):
        outcome.late.append(_describe(entry))
        outcome.survivors.append(f"found later: {_describe(entry)}")


def _unknown(found: list[Entry], scene: Scene) -> list[Entry]:
    return [entry for entry in found if entry.process not in scene.tree]


def _describe(entry: Entry) -> str:
    return f"{entry.pid} {entry.state} {entry.command[-90:]}"


def _name_survivor(scene: Scene, process: Process) -> str:
    return f"{scene.tree[process]} (state {proc.state_of(process)})"


def _tombstone(scene: Scene) -> tuple[str, str]:
    """Why the stop began and the proof, as the first member's tombstone has them."""
    found = []
    for path in Path(os.environ["TFLEASE_HOME"], scene.run_id).glob("*/tombstone.json"):
        with suppress(OSError, ValueError):
            told = json.loads(path.read_text())
            found.append((path.stat().st_mtime, told["reason"], told["proof"]))
    return min(found)[1:] if found else ("", "")


def kill_debris(look: Callable[[], list[Entry]]) -> None:
    """Whatever is found is killed, in rounds: one of them may be starting another."""
    for _ in range(50):
        left = look()
        if not left:
            return
        for entry in left:
            proc.send(entry.process, signal.SIGKILL)
        time.sleep(0.02)


def failed(error: BaseException) -> Outcome:
    """Of a repetition that could not be performed."""
    return replace(Outcome(), error=first_line(error))
