"""The door: several runs, deadlines, and refusals that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.core import events
from coordinator.core.effects import RunChanged
from coordinator.core.errors import (
    ExecutorUnfit,
    InvalidReservation,
    InvalidRun,
    RunOver,
    StaleIncarnation,
    TfleaseError,
    UnknownRun,
)
from coordinator.core.machine import KEPT_RUNS, Machine
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExitReport,
    IncarnationId,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    Slots,
)
from tests.coordinator.core.scene import RUN, Scene, executor, slot

NEVER = float("inf")
OTHER = RunId("another")


def reservation(
    run: RunId, which: str, attempt: str, python: str = ""
) -> events.ReservationRequested:
    on, at = executor(python_version=python), Endpoint("10.0.0.9", 9)
    return events.ReservationRequested(run, slot(which), IncarnationId(attempt), on, at)


def task_returned(run: RunId, which: str) -> events.TaskReturned:
    report = ExitReport(Cause.USER_EXCEPTION)
    return events.TaskReturned(run, slot(which), IncarnationId(f"{which}/1"), report)


def from_member(run: RunId, which: str, attempt: str) -> list[events.MemberEvent]:
    """One of each kind."""
    who = (run, slot(which), IncarnationId(attempt))
    return [
        events.SessionOpened(*who),
        events.SessionClosed(*who),
        events.Heard(*who),
        events.ProcessReady(*who),
        events.MainEntered(*who, generation=1),
        events.ProgressMade(*who, generation=1, step=5),
        events.ProcessEnded(*who, generation=1, report=ExitReport(Cause.USER_EXCEPTION)),
    ]


def forming() -> Scene:
    """worker:0 is held by its second attempt, worker:1 by nobody."""
    scene = Scene(Roles(worker=2), python_version="3.11")
    scene.reserve("worker:0", "worker:0/1")
    scene.end("worker:0", Cause.PREEMPTED, attempt="worker:0/1")
    scene.reserve("worker:0", "worker:0/2")
    return scene


def running() -> Scene:
    scene = Scene(Roles(worker=2), python_version="3.11")
    scene.form()
    return scene


def stopping() -> Scene:
    scene = running()
    scene.stop()
    return scene


def over() -> Scene:
    scene = stopping()
    scene.end("worker:0", Cause.STOPPED)
    scene.end("worker:1", Cause.STOPPED)
    return scene


STATES = (forming, running, stopping, over)
Refusal = tuple[Callable[[], Scene], events.Event, type[TfleaseError]]


def refusals() -> list[Refusal]:
    """Every error that ``handle`` can raise, from every state in which it can."""
    found: list[Refusal] = []
    for state in STATES:
        found.append((state, events.RunCreated(RUN, RunSpec(roles=Roles(worker=1))), InvalidRun))
        unknown: list[events.Event] = [
            events.StopRequested(OTHER, "x"),
            events.OwnerLost(OTHER, "x"),
            events.OwnerCame(OTHER),
            events.OwnerLeft(OTHER),
            events.SchedulingReported(OTHER, Slots()),
            reservation(OTHER, "worker:0", "worker:0/1"),
            task_returned(OTHER, "worker:0"),
            *from_member(OTHER, "worker:0", "worker:0/1"),
        ]
        found += [(state, event, UnknownRun) for event in unknown]
        for no_slot in (reservation(RUN, "ps:0", "ps:0/1"), task_returned(RUN, "ps:0")):
            found.append((state, no_slot, InvalidReservation))
        stale = from_member(RUN, "worker:0", "worker:0/9") + from_member(RUN, "ps:0", "ps:0/1")
        found += [(state, event, StaleIncarnation) for event in stale]
    for event in from_member(RUN, "worker:0", "worker:0/1"):
        found.append((forming, event, StaleIncarnation))
    found.append((forming, reservation(RUN, "worker:0", "worker:0/1"), StaleIncarnation))
    unfit = reservation(RUN, "worker:1", "worker:1/9", python="3.12.1")
    found.append((forming, unfit, ExecutorUnfit))
    found.append((over, reservation(RUN, "worker:1", "worker:1/9"), RunOver))
    for state in (stopping, over):
        found.append((state, reservation(RUN, "worker:1", "worker:1/1"), RunOver))
    return found


@pytest.mark.parametrize(
    "state, event, error",
    refusals(),
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_refused_event_changes_nothing(
    state: Callable[[], Scene], event: events.Event, error: type[TfleaseError]
) -> None:
    """R3, style rule 5. The events come late: one that counted would also move a clock."""
    scene = state()
    scene.now += 5.0
    before = (scene.view, scene.machine.run_ids(), scene.machine.next_deadline())
    with pytest.raises(TfleaseError) as caught:
        scene.machine.handle(event, scene.now)
    assert type(caught.value) is error
    scene.machine.check_invariants()
    assert (scene.view, scene.machine.run_ids(), scene.machine.next_deadline()) == before
    # What is not in the view shows in what follows: the same as without the refused event.
    twin = state()
    twin.now += 5.0
    assert scene.wait(300, beating=[]) == twin.wait(300, beating=[])
    assert scene.view == twin.view


def test_every_error_of_the_door_is_in_the_table_of_refusals() -> None:
    promised = {
        UnknownRun, RunOver, InvalidReservation, ExecutorUnfit, StaleIncarnation, InvalidRun,
    }  # fmt: skip
    assert {error for _, _, error in refusals()} == promised
    assert Machine.handle.__doc__ is not None
    assert all(error.__name__ in Machine.handle.__doc__ for error in promised)


def test_an_unknown_run_is_named_in_the_message_and_the_metadata() -> None:
    with pytest.raises(UnknownRun) as caught:
        Machine("book").view(OTHER, 0.0)
    assert OTHER in caught.value.message
    assert caught.value.metadata == {"run_id": OTHER}


def test_one_member_is_seen_as_in_the_picture_of_all() -> None:
    machine = Scene(Roles(worker=2)).machine
    members = machine.view(RUN, 2.0).members
    assert [machine.member_view(RUN, each.id, 2.0) for each in members] == [*members]
    with pytest.raises(InvalidReservation, match="has no ps:0"):
        machine.member_view(RUN, slot("ps:0"), 2.0)


def test_an_empty_machine_waits_for_nothing() -> None:
    machine = Machine("book")
    assert machine.next_deadline() == NEVER
    assert machine.handle(events.TimePassed(), 5.0) == ()
    assert machine.handle(events.CoordinatorPaused(5.0), 5.0) == ()
    machine.check_invariants()


def test_the_next_deadline_is_the_earliest_of_all_runs() -> None:
    machine = Machine("book")
    for name, timeout in (("a", 50.0), ("b", 20.0), ("c", 70.0)):
        spec = RunSpec(roles=Roles(worker=1), reservation_timeout=timeout)
        assert machine.handle(events.RunCreated(RunId(name), spec), 1.0) == (
            RunChanged(RunId(name)),
        )
    assert machine.run_ids() == ("a", "b", "c")
    assert machine.next_deadline() == 21.0
    machine.handle(events.TimePassed(), 21.0)
    assert machine.view(RunId("b"), 21.0).phase is RunPhase.FAILED
    assert machine.view(RunId("a"), 21.0).phase is RunPhase.FORMING
    assert machine.next_deadline() == 51.0


def test_runs_do_not_touch_each_other() -> None:
    """R6: a failed run leaves the next one alone."""
    scene = Scene(Roles(worker=1))
    scene.handle(events.RunCreated(OTHER, RunSpec(roles=Roles(worker=1))))
    scene.handle(reservation(OTHER, "worker:0", "worker:0/1"))
    before = scene.machine.view(OTHER, 0.0)
    scene.form()
    scene.end("worker:0", Cause.USER_EXCEPTION)
    assert scene.phase is RunPhase.FAILED
    assert scene.machine.view(OTHER, 0.0) == before


def test_a_pause_extends_all_runs() -> None:
    scene = Scene(Roles(worker=1), reservation_timeout=30.0)
    spec = RunSpec(roles=Roles(worker=1), reservation_timeout=30.0)
    scene.handle(events.RunCreated(OTHER, spec))
    scene.now = 40.0
    scene.handle(events.CoordinatorPaused(40.0))
    assert scene.handle(events.TimePassed()) == ()
    assert scene.machine.next_deadline() == 70.0


def test_time_that_passes_early_is_harmless() -> None:
    scene = Scene(Roles(worker=2))
    scene.take_slots()
    before = scene.view
    for _ in range(3):
        assert scene.handle(events.TimePassed()) == ()
    assert scene.view == before


def test_of_the_runs_that_have_ended_only_the_latest_are_remembered() -> None:
    """A daemon lives for months."""
    machine = Machine("book")
    spec = RunSpec(roles=Roles(worker=1))
    living = RunId("living")
    long = RunId("long")
    for run in (living, long):
        machine.handle(events.RunCreated(run, spec), 0.0)
    for number in range(KEPT_RUNS + 5):
        run = RunId(f"run-{number}")
        machine.handle(events.RunCreated(run, spec), float(number))
        machine.handle(events.StopRequested(run, "enough"), float(number))
    machine.handle(events.StopRequested(long, "enough"), 1000.0)
    machine.handle(events.RunCreated(RunId("last"), spec), 1000.0)
    known = machine.run_ids()
    assert len(known) == KEPT_RUNS + 2
    assert {living, long, "last", f"run-{KEPT_RUNS + 4}"} <= set(known), "by their ends"
    assert "run-0" not in known
