"""What costs a large gang no more than a small one, member by member."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import events, roster
from coordinator.core.holdout import Holdout
from coordinator.core.machine import Machine
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExitReport,
    IncarnationId,
    MemberId,
    Roles,
    RunPhase,
    RunSpec,
)
from tests.coordinator.core.scene import RUN, executor

SMALL, LARGE = 50, 400
"""A gang of eight times as many members costs eight times as much, and not 64 times."""


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_it_is_found_as_long_as_there_is_one(changes: list[tuple[int, bool]]) -> None:
    waiting = [True] * 10
    holdout = Holdout(range(10), waiting.__getitem__)
    for number, still in changes:
        waiting[number] = still
        found = holdout.find()
        assert waiting[found] if found is not None else not any(waiting)


@given(st.permutations(range(20)))
def test_whoever_leaves_in_whatever_order_is_looked_at_a_few_times(order: list[int]) -> None:
    waiting, looks = set(order), list[int]()

    def waits(number: int) -> bool:
        looks.append(number)
        return number in waiting

    holdout = Holdout(range(20), waits)
    for number in order:
        waiting.discard(number)
        holdout.find()
    assert not waiting
    assert len(looks) <= 4 * 20  # one for each who leaves, and two rounds at most


def test_nobody_is_there() -> None:
    assert Holdout((), bool).find() is None


class _Gang:
    """A run whose members all do the same, one after the other."""

    def __init__(self, roles: Roles) -> None:
        self.machine = Machine("book")
        self.slots = roster.members(roles)
        self.machine.handle(events.RunCreated(RUN, RunSpec(roles)), 0.0)

    def each(self, event: Callable[[MemberId, IncarnationId], events.Event]) -> int:
        """How many calls of functions it took."""
        calls = 0

        def count(frame: FrameType, kind: str, _: object) -> None:
            nonlocal calls
            calls += kind == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            for slot in self.slots:
                self.machine.handle(event(slot, IncarnationId(f"{slot}/1")), 0.0)
        finally:
            sys.setprofile(before)
        return calls

    def reserve(self) -> int:
        ports = {slot: Endpoint("10.0.0.1", 2000 + n) for n, slot in enumerate(self.slots)}
        where = executor()
        return self.each(
            lambda slot, who: events.ReservationRequested(RUN, slot, who, where, ports[slot])
        )

    def costs(self, cause: Cause) -> dict[str, int]:
        report = ExitReport(cause)
        return {
            "reserve": self.reserve(),
            "ready": self.each(lambda slot, who: events.ProcessReady(RUN, slot, who)),
            "enter": self.each(lambda slot, who: events.MainEntered(RUN, slot, who, 1)),
            "end": self.each(lambda slot, who: events.ProcessEnded(RUN, slot, who, 1, report)),
        }


@pytest.mark.parametrize("cause", [Cause.COMPLETED, Cause.USER_EXCEPTION])
@pytest.mark.parametrize("servers", [0, 1])
def test_a_member_costs_as_much_in_a_gang_of_any_size(cause: Cause, servers: int) -> None:
    few = _Gang(Roles(chief=servers, worker=SMALL, ps=servers))
    many = _Gang(Roles(chief=servers, worker=LARGE, ps=servers))
    small, large = few.costs(cause), many.costs(cause)
    assert many.machine.phase(RUN) in (RunPhase.SUCCEEDED, RunPhase.FAILED)
    for step, calls in large.items():
        assert calls < 2 * LARGE / SMALL * small[step], f"{step}: {small[step]} and {calls} calls"
