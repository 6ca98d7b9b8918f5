"""The tables: complete, closed, and what the diagrams are made of."""

from __future__ import annotations

import itertools

import pytest

from coordinator.core.member import Member
from coordinator.core.model import MemberId, MemberPhase, Role, RunPhase
from coordinator.core.transitions import (
    MEMBER_TRANSITIONS,
    RUN_TRANSITIONS,
    MemberTrigger,
    RunTrigger,
    mermaid,
    next_member_phase,
    next_run_phase,
)


def test_a_run_follows_its_table_and_nothing_else() -> None:
    for phase, trigger in itertools.product(RunPhase, RunTrigger):
        expected = RUN_TRANSITIONS.get((phase, trigger))
        if expected is not None:
            assert next_run_phase(phase, trigger) is expected
        else:
            with pytest.raises(AssertionError, match=trigger.name):
                next_run_phase(phase, trigger)


def test_a_member_follows_its_table_and_nothing_else() -> None:
    for phase, trigger in itertools.product(MemberPhase, MemberTrigger):
        member = Member(MemberId(Role.WORKER, 0), 0.0)
        member.phase = phase
        expected = MEMBER_TRANSITIONS.get((phase, trigger))
        if expected is not None:
            member.move(trigger, 7.0)
            assert (member.phase, member.phase_at) == (expected, 7.0)
            assert next_member_phase(phase, trigger) is expected
        else:
            with pytest.raises(AssertionError, match=trigger.name):
                member.move(trigger, 7.0)
            assert (member.phase, member.phase_at) == (phase, 0.0)


def test_nothing_follows_a_terminal_run_and_every_other_run_can_end() -> None:
    sources = {source for source, _ in RUN_TRANSITIONS}
    assert sources == {phase for phase in RunPhase if not phase.is_terminal}
    assert set(RUN_TRANSITIONS.values()) | {RunPhase.FORMING} == set(RunPhase)


def test_every_live_member_can_end_be_stopped_and_be_lost() -> None:
    for phase in MemberPhase:
        if phase.is_live:
            for trigger in (MemberTrigger.EXIT, MemberTrigger.STOP, MemberTrigger.LOSE):
                assert (phase, trigger) in MEMBER_TRANSITIONS


def test_only_a_fence_or_the_end_of_the_task_frees_a_slot_for_another() -> None:
    """R3, R4"""
    vacant = {MemberPhase.EXPECTED, MemberPhase.FENCED}
    reserving = {source for source, t in MEMBER_TRANSITIONS if t is MemberTrigger.RESERVE}
    assert reserving == vacant
    freeing = {t for (_, t), target in MEMBER_TRANSITIONS.items() if target in vacant}
    assert freeing == {
        MemberTrigger.FENCE,
        MemberTrigger.VACATE,
        MemberTrigger.RENEW,
    }
    renewed = {source for source, t in MEMBER_TRANSITIONS if t is MemberTrigger.RENEW}
    assert renewed == {phase for phase in MemberPhase if phase.has_ended}, "proven gone, or fenced"


def test_every_trigger_is_used() -> None:
    assert {trigger for _, trigger in RUN_TRANSITIONS} == set(RunTrigger)
    assert {trigger for _, trigger in MEMBER_TRANSITIONS} == set(MemberTrigger)


def test_a_table_becomes_a_diagram_line_by_line() -> None:
    lines = mermaid(RUN_TRANSITIONS).splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> FORMING"]
    assert "    FORMING --> RUNNING: every member is ready" in lines
    ends = [line for line in lines if line.endswith("--> [*]")]
    assert len(ends) == 3
    assert len(lines) == 2 + len(RUN_TRANSITIONS) + len(ends)
