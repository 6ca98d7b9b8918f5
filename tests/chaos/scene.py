"""A run of a nasty program on a stage, and all its processes, as /proc shows them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import driving, proc
from tests.chaos.proc import Entry, Process, Scan
from tests.chaos.stage import Stage
from tests.spark.helpers import eventually

_HELPER = str(Path(__file__).with_name("helper.py"))
_READY_TIMEOUT = 90.0
_PAUSE = 34


class NotPerformed(RuntimeError):
    """The scene is not what the row needs; nothing can be said about the product."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The run that a row needs."""

    program: str
    helpers: tuple[str, ...]
    roles: dict[str, int]
    anchor: str
    grace: float
    tensorflow: bool


@dataclass
class Scene:
    """``actors``: who can be told by name, those of the first member where there are several.
    ``tree``: what must be gone, by process with what it is. ``acted_at``: when
    the deadly part of the act began."""

    stage: Stage
    plan: Plan
    tag: str
    folder: Path
    run_id: str
    actors: dict[str, Process] = field(default_factory=dict)
    tree: dict[Process, str] = field(default_factory=dict)
    acted_at: float = 0.0

    @property
    def incarnations(self) -> set[str]:
        """The markers that processes of the tree carry."""
        seen = proc.scan()
        return {seen[p.pid].marker for p in self.tree if p.pid in seen} - {""}

    def open_gate(self, word: str) -> None:
        draft = self.folder / ".gate"
        draft.write_text(word)
        draft.rename(self.folder / "gate")

    def stragglers(self, markers: Iterable[str]) -> list[Entry]:
        """What lives of these members by any of three signs: the tag, a pid file, the marker."""
        wanted = set(markers)
        written = set(_pid_files(self.folder))
        return [
            entry
            for entry in proc.scan().values()
            if entry.lives
            and (self.tag in entry.command or entry.process in written or entry.marker in wanted)
        ]

    def leftovers(self) -> list[Entry]:
        """What lives of the run, later attempts included."""
        known = set(self.tree)
        return [
            entry
            for entry in proc.scan().values()
            if entry.lives
            and (
                entry.process in known
                or self.tag in entry.command
                or entry.marker.startswith(f"{self.run_id}/")
            )
        ]


def begin(stage: Stage, plan: Plan, tag: str, folder: Path) -> Scene:
    """On return the program runs on all members, with all its helpers. Raises NotPerformed."""
    folder.mkdir()
    args = {"tag": tag, "folder": str(folder), "helpers": plan.helpers, "helper": _HELPER}
    settings = {
        "roles": plan.roles,
        "anchor": plan.anchor,
        "grace": plan.grace,
        "tensorflow": plan.tensorflow,
    }
    before = set(proc.scan())
    run_id = stage.call(driving.begin, plan.program, args, settings)
    scene = Scene(stage, plan, tag, folder, run_id)
    names = [f"{role}-{index}" for role, count in plan.roles.items() for index in range(count)]
    told = [folder / name / "member.json" for name in names]
    eventually(lambda: all(p.exists() for p in told), "all members to be up", _READY_TIMEOUT)
    if plan.anchor == "executor":
        eventually(lambda: stage.call(driving.is_idle), "the tasks to hand over")
    _find(scene, told, before)
    if plan.program == "stuck":
        eventually(lambda: _is_stuck(scene.actors["member"]), "the interpreter's lock to be held")
    return scene


def _is_stuck(member: Process) -> bool:
    """Whether a thread sits in pause(2), which it has called with the interpreter's lock held."""
    if platform.machine() != "x86_64":
        return True  # other machines have other numbers, or do it by another call
    threads = Path(f"/proc/{member.pid}/task").glob("[0-9]*/syscall")
    others = [each for each in threads if each.parent.name != str(member.pid)]
    return any(each.read_text().startswith(f"{_PAUSE} ") for each in others)


def _find(scene: Scene, told: list[Path], before: set[int]) -> None:
    seen = proc.scan()
    for path in told:
        _find_member(scene, seen, json.loads(path.read_text()), path.parent.name)
    actors = scene.actors
    actors["driver"] = scene.stage.driver
    driver = proc.below(seen, scene.stage.driver.pid)
    _name(actors, "driver JVM", (e for e in driver if "SparkSubmit" in e.command))
    _name(
        actors,
        "coordinator",
        (e for e in driver if "coordinator.embedded" in e.command and e.pid not in before),
    )
    if scene.stage.cluster is not None and "executor" in actors:
        above = seen.get(seen[actors["executor"].pid].parent)
        _name(actors, "Spark worker", () if above is None else (above,))


def _find_member(scene: Scene, seen: Scan, told: dict[str, Any], name: str) -> None:
    member = Process(told["pid"], told["started"])
    entry = seen.get(member.pid)
    if entry is None or entry.process != member:
        raise NotPerformed(f"{name} is gone before anything was done")
    sentinel = seen.get(entry.parent)
    if sentinel is None or "executor_agent.sentinel" not in sentinel.command:
        raise NotPerformed(f"the parent of {name} is no sentinel")
    helpers = len(scene.plan.helpers)
    # Orphans are the sentinel's children by now, so that all are below it.
    tree = [e for e in proc.below(seen, sentinel.pid) if e.lives]
    if sum(scene.tag in e.command for e in tree) < helpers:
        raise NotPerformed(f"{name} has not all its {helpers} helpers")
    agents = [e for e in tree if "executor_agent.agent" in e.command]
    found = {e.process: _title(e, member) for e in (sentinel, *tree)}
    scene.tree.update({process: f"{name}'s {title}" for process, title in found.items()})
    if "member" in scene.actors:
        return
    scene.actors.update(member=member, sentinel=sentinel.process)
    _name(scene.actors, "agent", agents)
    _find_spark(scene, seen, sentinel, told["executor_id"])


def _find_spark(scene: Scene, seen: Scan, sentinel: Entry, executor_id: str) -> None:
    stage = scene.stage
    roots = [stage.driver.pid, *(stage.cluster.pids if stage.cluster is not None else ())]
    executor = next(
        (
            entry
            for root in roots
            for entry in proc.below(seen, root)
            if f"--executor-id {executor_id} " in entry.command and "java" in entry.command
        ),
        None,
    )
    if executor is None:
        raise NotPerformed(f"executor {executor_id} was not found")
    scene.actors["executor"] = executor.process
    python = proc.below(seen, executor.pid)
    daemons = [e for e in python if e.parent == executor.pid and "pyspark.daemon" in e.command]
    _name(scene.actors, "daemon", daemons)
    workers = [e for e in python if daemons and e.parent == daemons[0].pid]
    above = [e for e in workers if e.pid == sentinel.parent]
    _name(scene.actors, "worker", above or workers)


def _name(actors: dict[str, Process], name: str, found: Iterable[Entry]) -> None:
    for entry in found:
        actors[name] = entry.process
        return


def _title(entry: Entry, member: Process) -> str:
    if entry.process == member:
        return "process"
    for program in ("sentinel", "agent"):
        if f"executor_agent.{program}" in entry.command:
            return program
    return f"helper ({entry.command.rpartition(' ')[2]})"


def _pid_files(folder: Path) -> list[Process]:
    found = []
    for path in folder.glob("*/*.pid"):
        pid, started = path.read_text().split()
        found.append(Process(int(pid), int(started)))
    for path in folder.glob("*/member.json"):
        told = json.loads(path.read_text())
        found.append(Process(told["pid"], told["started"]))
    return found
