"""The incarnations of one task's member: one after the other, each with a directory, a sentinel, an
agent and a process of its own.

Owns: an incarnation's way from its directory to its row, and going on with the next one. Must not
know Spark. To be used on the task's main thread: an interrupt ends all of it, wherever it comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from executor_agent import logs, marks, member_directory
from executor_agent.core.succession import Predecessor, has_successor
from executor_agent.core.supervision import MEMBER_LOG, Tombstone
from executor_agent.launcher import SentinelProcess
from executor_agent.member_launch import MemberLaunch
from executor_agent.oom import OomWatch
from executor_agent.processes import ProcessIdentity
from executor_agent.report import exit_report
from executor_agent.supervision_log import SupervisionLog

Row: TypeAlias = dict[str, Any]
"""As ``spark_task.ROW_SCHEMA`` has it; what is missing is null."""

Blueprint: TypeAlias = Callable[[str, Path, Predecessor | None], MemberLaunch]
"""What to start for an incarnation in its directory, after its predecessor. May raise OSError."""

_NO_EXECUTOR = "the executor's JVM was not found above this Python worker: nothing to hand over to"


@dataclass(frozen=True, slots=True)
class Incarnations:
    """``restart_causes`` and ``has_assigned_gpus`` as in `has_successor`. ``is_abandoned``: nobody
    waits any more for what the task returns."""

    run_id: str
    member: str
    blueprint: Blueprint
    restart_causes: Collection[str]
    is_abandoned: Callable[[], bool]
    has_assigned_gpus: bool

    def run(self, first: str) -> Row:
        """The row of the last one that had the slot; of the first one, if none had it."""
        incarnation, predecessor, row = first, None, None
        number = 1
        while True:
            attempt = self._attempt(incarnation, predecessor)
            if row is not None and not attempt.had_slot:
                return row  # the run is over, or this place is no good any more
            row = attempt.row
            if not attempt.goes_on:
                return row
            number += 1
            predecessor = Predecessor(incarnation, attempt.ports)
            incarnation = f"{first}.{number}"

    def _attempt(self, incarnation: str, predecessor: Predecessor | None) -> _Attempt:
        row: Row = {"member": self.member, "incarnation": incarnation}
        try:
            directory = member_directory.create(self.run_id, self.member, incarnation)
        except (OSError, member_directory.UnsafeDirectory) as error:
            return _Attempt({**row, "refusal": f"no directory for the member: {error}"})
        try:
            launch = self.blueprint(incarnation, directory, predecessor)
            if launch.detached and "executor" not in launch.watch:
                return _Attempt({**row, "refusal": _NO_EXECUTOR})
            sentinel = SentinelProcess(launch, self.is_abandoned)
            oom = OomWatch()
            tombstone = sentinel.run()
        except OSError as error:  # no process, memory or descriptor to be had, or no cwd
            return _Attempt({**row, "refusal": f"the member could not be started: {error}"})
        if tombstone is None:
            whereabouts = _whereabouts(sentinel.identity, directory)
            return _Attempt({**row, "handed_over": whereabouts}, had_slot=True)
        return self._ended(row, launch, tombstone, oom)

    def _ended(
        self, row: Row, launch: MemberLaunch, tombstone: Tombstone, oom: OomWatch
    ) -> _Attempt:
        directory = launch.directory
        words = marks.read(directory)
        report = exit_report(
            tombstone,
            member_directory.read_outcome(directory),
            stop_asked=words.is_to_follow,  # of any other stop the agent tells first
            log_tail=logs.tail(directory / MEMBER_LOG),
            oom=oom.verdict(tombstone),
        )
        row["report"] = report.to_json()
        row["result"] = member_directory.take_result(directory)
        goes_on = has_successor(
            words,
            self.restart_causes,
            is_proven_gone=tombstone.proof != "none" and not tombstone.survivors,
            is_wanted=not self.is_abandoned(),
            has_assigned_gpus=self.has_assigned_gpus,
        )
        if goes_on:
            log = SupervisionLog(str(directory), launch.marker, "task")
            log.say(f"starts the member once more: the last one ended with {words.told!r}")
            log.flush()
        return _Attempt(row, words.had_slot, goes_on, words.ports)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What became of one incarnation."""

    row: Row
    had_slot: bool = False
    goes_on: bool = False
    ports: tuple[int, ...] = ()


def _whereabouts(sentinel: ProcessIdentity, directory: Path) -> str:
    where = {"pid": sentinel.pid, "create_time": sentinel.create_time, "directory": str(directory)}
    return json.dumps(where)
