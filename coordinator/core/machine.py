"""The one door: ``handle(event, now) -> effects``, ``next_deadline()``, ``check_invariants()``.

Synchronous and deterministic: the caller brings the time, the ids and the I/O. An event that is
refused raises a ``TfleaseError`` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from coordinator.core import diagnosis, events, invariants
from coordinator.core.deadlines import Deadlines
from coordinator.core.durable import Changes, Key, Ledger, Records
from coordinator.core.effects import (
    Effect,
    GpuFreed,
    GpuLeased,
    GpusGranted,
    GpusRefused,
    Noted,
    RunChanged,
)
from coordinator.core.errors import InvalidReservation, InvalidRun, UnknownRun
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_news import Acquired, BookEffect, Expired, Freed, Lapsed, Leased, Told
from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.core.run import Run

KEPT_RUNS = 100
"""So many runs that have ended are remembered; with each new run older ones are forgotten."""


class Machine:
    """All runs of one coordinator, and the book of GPUs that they share. ``coordinator_id``: never
    used by another one, but by the one before a restart from whose records this one was restored.
    ``last_number``: above all that the one before has used, so that an answer to its last
    inspection is none to our first. ``durable``: changes are collected for ``take_changes``."""

    def __init__(self, coordinator_id: str, last_number: int = 0, durable: bool = False) -> None:
        self._ledger = Ledger() if durable else None
        self._runs: dict[RunId, Run] = {}
        self._forming: dict[RunId, Run] = {}  # and some that do so no longer
        self._requests: dict[str, RunId] = {}  # by which runs were created
        self._deadlines: Deadlines[Run] = Deadlines()
        self._is_restored = False  # and has not looked at the runs since
        self.book = LeaseBook(coordinator_id, last_number, self._ledger)

    # -- over a restart --------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether ``take_changes`` has anything to tell."""
        return self._ledger is not None and bool(self._ledger.changed or self._ledger.removed)

    def take_changes(self, offset: float) -> Changes:
        """What is to be written since the last time (``durable``), to be written as a whole.
        ``offset``: from the machine's instants to Unix time. After ``settle_gpus``, if at all."""
        return Changes({}, frozenset()) if self._ledger is None else self._ledger.take(offset)

    @classmethod
    def restore(
        cls,
        coordinator_id: str,
        records: Mapping[Key, Mapping[str, Any]],
        now: float,
        offset: float,
    ) -> Machine:
        """The machine of before, from all that was written of it (``durable``): without records a
        new one. Raises BrokenRecord."""
        machine = cls(coordinator_id, durable=True)
        if records:
            machine._restore(Records(records, now, offset))
        return machine

    def _restore(self, records: Records) -> None:
        assert self._ledger is not None
        self.book.restore(records)
        ids = map(RunId, records.keys("run"))
        runs = [Run.restore(run_id, records, self.book, self._ledger) for run_id in ids]
        for run in sorted(runs, key=lambda run: run.number):
            run.connect(records)
            self._add(run)
        records.check_all_read()
        self._ledger.clear()
        self._is_restored = True
        self.book.serve(records.now)  # what somebody waited for who does so no longer

    def _add(self, run: Run) -> None:
        self._runs[run.run_id] = self._forming[run.run_id] = run
        if run.request_id:
            self._requests[run.request_id] = run.run_id
        self._deadlines.arm(run.run_id, run)

    # -- events ----------------------------------------------------------------------------

    def handle(self, event: events.Event, now: float) -> tuple[Effect, ...]:
        """Applies one event at the instant ``now`` (seconds, never going back).

        Raises UnknownRun, RunOver, InvalidReservation, ExecutorUnfit, StaleIncarnation,
        InvalidRun, LeaseLost.
        """
        return (*self._handle(event, now), *self.settle_gpus(now))

    def settle_gpus(self, now: float) -> tuple[Effect, ...]:
        """What follows from a change of the book; to be called after it was used directly."""
        effects: list[Effect] = []
        while (news := self.book.take_effects()) or self._is_restored:
            effects += [each for item in news for each in _from_book(item, self._runs)]
            for run in self._concerned(news):
                effects += run.form_if_ready(now)
                self._deadlines.arm(run.run_id, run)
        return tuple(effects)

    def _concerned(self, news: Iterable[BookEffect]) -> list[Run]:
        """Runs that may go on now. A grant or a lapse is one run's business; what is said of a GPU
        is that of all who may wait for it."""
        if self._is_restored or any(isinstance(item, Told) for item in news):
            self._is_restored = False
            runs = [run for run in self._forming.values() if run.phase is RunPhase.FORMING]
            self._forming = {run.run_id: run for run in runs}
            return runs
        ids = {_run_of(item.request_id) for item in news if isinstance(item, Acquired | Lapsed)}
        found = [self._forming[run_id] for run_id in ids if run_id in self._forming]
        return sorted(found, key=lambda run: run.number)

    def _handle(self, event: events.Event, now: float) -> Iterable[Effect]:
        match event:
            case events.RunCreated(run_id=run_id, spec=spec, request_id=request_id):
                if run_id in self._runs:
                    raise InvalidRun(f"run {run_id} exists already")
                self._forget_old()
                number = 1 + max((run.number for run in self._runs.values()), default=0)
                self._add(Run(run_id, spec, self.book, now, number, self._ledger, request_id))
                return (RunChanged(run_id),)
            case events.CoordinatorPaused(seconds=seconds):
                for run in self._runs.values():
                    run.extend(seconds)
                self.book.extend(seconds)
                return ()
            case events.TimePassed():
                self.book.pass_time(now)
                effects: list[Effect] = []
                for run in self._due(now):
                    effects += run.pass_time(now)
                    self._look_again(run)
                return effects
            case _:
                run = self._run(event.run_id)
                effects = _to_run(run, event, now)
                self._look_again(run)
                return effects

    def _look_again(self, run: Run) -> None:
        """Its deadline may be earlier than before, and it may form once more."""
        self._deadlines.arm(run.run_id, run)
        if run.phase is RunPhase.FORMING:
            self._forming[run.run_id] = run

    def _forget_old(self) -> None:
        ended = [run for run in self._runs.values() if run.phase.is_terminal]
        ended.sort(key=lambda run: run.ended_at)  # whoever waits for the latest must still see them
        for run in ended[: max(0, len(ended) - KEPT_RUNS)]:
            del self._runs[run.run_id]
            self._requests.pop(run.request_id, None)
            self._forming.pop(run.run_id, None)
            self._deadlines.drop(run.run_id)
            run.forget()

    def _due(self, now: float) -> list[Run]:
        return sorted(self._deadlines.due(now), key=lambda run: run.number)

    def _run(self, run_id: RunId) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            raise UnknownRun(f"this coordinator knows no run {run_id}", {"run_id": run_id})
        return run

    # -- out -------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """The instant at which ``TimePassed`` is due at the latest; infinity when never. It may
        be earlier than needed, never later."""
        return min(self._deadlines.next(), self.book.next_deadline())

    def run_of_request(self, request_id: str) -> RunId | None:
        """The run that was created by this request, if any."""
        return self._requests.get(request_id)

    def spec(self, run_id: RunId) -> RunSpec:
        """What a run is, without the price of a view. Raises UnknownRun."""
        return self._run(run_id).spec

    def phase(self, run_id: RunId) -> RunPhase:
        """Where a run stands, without the price of a view. Raises UnknownRun."""
        return self._run(run_id).phase

    def member_phase(self, run_id: RunId, member: MemberId) -> MemberPhase:
        """Where a member stands, without the price of a view. Raises UnknownRun, KeyError."""
        return self._run(run_id).member_phase(member)

    def member_view(self, run_id: RunId, member: MemberId, now: float) -> MemberView:
        """One member, without the price of a view. Raises UnknownRun, InvalidReservation."""
        run = self._run(run_id)
        try:
            return run.member_view(member, now)
        except KeyError:
            raise InvalidReservation(f"run {run_id} has no {member}") from None

    def view(self, run_id: RunId, now: float) -> RunView:
        """A frozen picture of a run, with the diagnosis. Raises UnknownRun."""
        view = self._run(run_id).view(now)
        return replace(view, diagnosis=diagnosis.explain(view, now))

    def run_ids(self) -> tuple[RunId, ...]:
        """All runs, newest last."""
        return tuple(self._runs)

    def check_invariants(self) -> None:
        """What must hold between events (ARCHITECTURE.md, "Invariants"). Raises AssertionError."""
        self.book.check_invariants()
        invariants.check_leases(
            self.book.holders(), {run_id: run.phase for run_id, run in self._runs.items()}
        )
        deadline = self._deadlines.next()
        for run in self._runs.values():
            run.check_invariants()
            assert deadline <= run.next_deadline(), "a deadline is forgotten"


def _to_run(run: Run, event: events.RunEvent, now: float) -> list[Effect]:
    match event:
        case events.StopRequested(reason=reason, grace=grace):
            return run.stop(reason, grace, now)
        case events.OwnerLost(reason=reason):
            return run.stop(reason, None, now)
        case events.OwnerCame() | events.OwnerLeft():
            return run.own(event, now)
        case events.SchedulingReported():
            return run.report_scheduling(event, now)
        case events.TaskReturned():
            return run.task_returned(event, now)
        case events.ReservationRequested():
            return run.reserve(event, now)
        case _:
            return run.attend(event, now)


def _from_book(news: BookEffect, runs: Mapping[RunId, Run]) -> list[Effect]:
    """Requests of runs are answered by the runs themselves, which ask again."""
    match news:
        case Told(text=text):
            return [Noted(None, text)]
        case Acquired(request_id=request_id) if _run_of(request_id) not in runs:
            return [GpusGranted(request_id)]
        case Leased(request_id=request_id):
            run = _known(request_id, runs)
            where = (news.uuid, news.hostname, news.token)
            return [GpuLeased(run, *where, news.holder, news.who)]
        case Freed(request_id=request_id):
            run = _known(request_id, runs)
            return [GpuFreed(run, news.uuid, news.hostname, news.token)]
        case Expired(request_id=request_id, why=why):
            return [GpusRefused(request_id, why)]
        case Lapsed(request_id=request_id, who=who, uuid=uuid):
            # A run's member has a shorter clock of its own; the next renewal is refused to both.
            text = f"{who} has not renewed its lease of GPU {uuid} in time"
            return [Noted(_known(request_id, runs), text)]
        case _:
            return []


def _known(request_id: str, runs: Mapping[RunId, Run]) -> RunId | None:
    """The run that has made the request, if one has."""
    run_id = _run_of(request_id)
    return run_id if run_id in runs else None


def _run_of(request_id: str) -> RunId:
    return RunId(request_id.partition("/")[0])
