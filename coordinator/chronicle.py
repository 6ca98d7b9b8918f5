"""Writes the record of events: what the machine was told and wants done, in sentences.

The one place where decisions become events, fed by the engine with each event and its effects.
Whatever is recorded is a line in the log, too; what every member of a good run does, at level
debug. It asks for no more than it needs: a member's beat costs nothing here, a gang of thousands
that reports one by one costs a few words for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from coordinator import event_kinds as kinds
from coordinator.core import effects, events
from coordinator.core.model import (
    VERSION,
    Cause,
    MemberId,
    MemberPhase,
    Restart,
    RunId,
    RunPhase,
    RunView,
)
from coordinator.core.verdict import VACATING, unasked
from coordinator.event_log import EventLog
from coordinator.gpu_chronicle import GpuChronicle

_log = logging.getLogger("tflease.coordinator")

_KIND_OF_PHASE = {
    RunPhase.FORMING: kinds.RUN_CREATED,
    RunPhase.RUNNING: kinds.RUN_FORMED,
    RunPhase.RESTARTING: kinds.RUN_RESTARTING,
    RunPhase.STOPPING: kinds.RUN_STOPPING,
    RunPhase.SUCCEEDED: kinds.RUN_SUCCEEDED,
    RunPhase.FAILED: kinds.RUN_FAILED,
    RunPhase.CANCELLED: kinds.RUN_CANCELLED,
}
_SILENT = {MemberPhase.LOST: kinds.MEMBER_LOST, MemberPhase.FENCED: kinds.MEMBER_FENCED}

_TOLD_OTHERWISE = "is to end, "
"""How a run's note begins that the event of its new phase makes superfluous."""

_ROUTINE = (
    kinds.MEMBER_RESERVED,
    kinds.MEMBER_COMPLETED,
    kinds.MEMBER_STOPPED,
    kinds.GPU_GRANTED,
    kinds.GPU_RELEASED,
)
"""A gang of thousands would write as many lines, and the event loop waits for each."""

_LEVELS = {kinds.COORDINATOR_PAUSED: logging.WARNING} | dict.fromkeys(_ROUTINE, logging.DEBUG)


class Runs(Protocol):
    """What is asked about runs: an engine's machine."""

    def run_ids(self) -> tuple[RunId, ...]: ...

    def phase(self, run_id: RunId) -> RunPhase: ...

    def member_phase(self, run_id: RunId, member: MemberId) -> MemberPhase: ...


class Chronicle:
    """``view``: the full picture of a run, which is asked for when its phase changes or somebody
    falls silent."""

    def __init__(self, log: EventLog, runs: Runs, view: Callable[[RunId], RunView]) -> None:
        self._events = log
        self._runs = runs
        self._view = view
        # What was there before us is no news.
        self._phases = {run_id: runs.phase(run_id) for run_id in runs.run_ids()}
        self._silent: dict[RunId, dict[MemberId, str]] = {}
        self._gpus = GpuChronicle(self.tell)

    def begin(self, *, has_past: bool) -> None:
        """It serves from now on. ``has_past``: with a journal that is not new."""
        alive = sum(not phase.is_terminal for phase in self._phases.values())
        if has_past:
            text = f"tflease {VERSION} is here again, with {alive} runs that go on"
            self.tell(kinds.COORDINATOR_RESTARTED, text)
        else:
            self.tell(kinds.COORDINATOR_STARTED, f"tflease {VERSION} has started")

    def tell(self, kind: str, text: str, run_id: str = "", subject: str = "") -> None:
        """Into the record, and into the log."""
        self._events.add(kind, text, run_id, subject)
        event = self._events.kept[-1]
        about = f"{subject} " if subject and not kind.startswith("gpu.") else ""
        line = f"run {run_id}: {about}{event.text}" if run_id else event.text
        about_what = {"run_id": run_id, "subject": subject, "kind": kind}
        _log.log(_LEVELS.get(kind, logging.INFO), "%s", line, extra=about_what)

    def observe(self, event: events.Event | None, done: Sequence[effects.Effect]) -> None:
        """The machine has taken ``event`` and wants this done; None: the book of GPUs was used
        directly."""
        if isinstance(event, events.CoordinatorPaused):
            text = f"the coordinator did not run for {event.seconds:.1f} s: all clocks extended"
            self.tell(kinds.COORDINATOR_PAUSED, text)
        changed = dict.fromkeys(
            each.run_id for each in done if isinstance(each, effects.RunChanged)
        )
        if event is not None and changed:
            self._of_member(event, changed)
        for effect in done:
            self._of_effect(effect)
        for run_id in changed:
            self._of_run(run_id)

    # -- runs ------------------------------------------------------------------------------

    def _of_run(self, run_id: RunId) -> None:
        before, phase = self._phases.get(run_id), self._runs.phase(run_id)
        if before is phase:
            return
        if before is None:
            self._forget_what_was_forgotten()
        self._phases[run_id] = phase
        view = self._view(run_id)
        reforms = phase is RunPhase.FORMING and view.restart_count > 0
        kind = kinds.RUN_REFORMING if reforms else _KIND_OF_PHASE[phase]
        self.tell(kind, _sentence(view), run_id)

    def _forget_what_was_forgotten(self) -> None:
        known = set(self._runs.run_ids())
        self._phases = {run: phase for run, phase in self._phases.items() if run in known}
        self._silent = {run: told for run, told in self._silent.items() if run in known}

    # -- members ---------------------------------------------------------------------------

    def _of_member(self, event: events.Event, changed: Iterable[RunId]) -> None:
        match event:
            case events.TimePassed():  # the only one by which members fall silent
                for run_id in changed:
                    self._find_silent(run_id)
            case events.ReservationRequested(run_id=run_id, member=member, executor=executor):
                text = f"has a place on {executor} as {event.incarnation}"
                self.tell(kinds.MEMBER_RESERVED, text, run_id, str(member))
                self._silent.get(run_id, {}).pop(member, None)
            case events.ProcessEnded(generation=generation):
                self._of_end(event, generation)
            case events.TaskReturned(run_id=run_id):
                self._of_end(event, 0 if self._phases.get(run_id) is RunPhase.FORMING else 1)
            case _:
                self._of_return(event)

    def _of_end(self, event: events.ProcessEnded | events.TaskReturned, generation: int) -> None:
        run_id, report, member = event.run_id, event.report, str(event.member)
        self._silent.get(run_id, {}).pop(event.member, None)
        before = self._phases.get(run_id)
        if before not in (RunPhase.STOPPING, RunPhase.RESTARTING):
            report = unasked(report, generation, forming=before is RunPhase.FORMING)
        said = _first_line(report.message or report.exception_type or report.reason)
        text = f"{report.cause.value}: {said}" if said else report.cause.value
        if report.cause is Cause.COMPLETED:
            self.tell(kinds.MEMBER_COMPLETED, "has completed", run_id, member)
        elif before is RunPhase.FORMING and report.cause in VACATING:
            self.tell(kinds.MEMBER_VACATED, f"has left its place, {text}", run_id, member)
        elif report.cause is Cause.STOPPED:
            self.tell(kinds.MEMBER_STOPPED, f"has ended, {text}", run_id, member)
        else:
            self.tell(kinds.MEMBER_FAILED, f"has failed, {text}", run_id, member)

    def _find_silent(self, run_id: RunId) -> None:
        told = self._silent.setdefault(run_id, {})
        for member in self._view(run_id).members:
            kind = _SILENT.get(member.phase)
            if kind is None or told.get(member.id) == kind:
                continue
            told[member.id] = kind
            where = f" on {member.executor}" if member.executor else ""
            if kind == kinds.MEMBER_LOST:
                text = f"is lost{where}: {member.exit.message if member.exit else 'silent'}"
            else:
                text = f"is fenced{where}: silent for so long that its agent must have stopped it"
            self.tell(kind, text, run_id, str(member.id))

    def _of_return(self, event: events.Event) -> None:
        """Whoever was lost and says anything while the gang forms is there again."""
        run_id, member = getattr(event, "run_id", None), getattr(event, "member", None)
        if run_id is None or member is None:
            return
        if self._silent.get(run_id, {}).get(member) != kinds.MEMBER_LOST:
            return
        if self._runs.member_phase(run_id, member).is_live:
            del self._silent[run_id][member]
            self.tell(kinds.MEMBER_RETURNED, "is heard of again", run_id, str(member))

    # -- GPUs and the rest -----------------------------------------------------------------

    def _of_effect(self, effect: effects.Effect) -> None:
        match effect:
            case effects.GpuLeased():
                self._gpus.leased(effect)
            case effects.GpuFreed():
                self._gpus.freed(effect)
            case effects.Restarted(run_id=run_id, restart=restart):
                subject = "" if restart.member is None else str(restart.member)
                self.tell(kinds.RUN_RESTARTED, _first_line(_of_restart(restart)), run_id, subject)
            case effects.Noted(run_id=run_id, text=text):
                if run_id is not None and text.startswith(_TOLD_OTHERWISE):
                    return
                if run_id is None or " lease of GPU " in text:
                    self._gpus.noted(run_id or "", text)
                else:
                    self.tell(kinds.RUN_NOTED, text, run_id)
            case _:
                pass


def _sentence(view: RunView) -> str:
    """One line, whatever the texts in it are: their authors are users."""
    match view.phase:
        case RunPhase.FORMING if view.restart_count:
            return f"forms again, after restart {view.restart_count}"
        case RunPhase.RESTARTING:
            text = f"restarting: {view.stop_reason}"
        case RunPhase.FORMING:
            return f"created: {view.spec.name!r}, {len(view.members)} members"
        case RunPhase.RUNNING:
            return (
                f"formed: all {len(view.members)} members are there (generation {view.generation})"
            )
        case RunPhase.STOPPING:
            text = f"stopping: {view.stop_reason}"
        case RunPhase.FAILED if view.failure is not None:
            text = f"failed: {view.failure.summary}"
        case _:
            text = f"{view.phase.value}: {view.stop_reason}"
    return _first_line(text)


def _of_restart(restart: Restart) -> str:
    who = f"{restart.member} alone" if restart.alone else "the gang"
    where = f"generation {restart.generation}, step {restart.step}"
    return f"restart of {who} ({where}) after {restart.cause.value}: {restart.summary}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
