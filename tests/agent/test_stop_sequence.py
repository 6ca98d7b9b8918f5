"""The decisions of the stop sequence, without any process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_agent.core.stop_events import (
    AgentDone,
    AgentExited,
    AgentStarted,
    AnchorDied,
    AnnounceStop,
    Conclude,
    ControlClosed,
    Effect,
    Event,
    KillRound,
    LifelineClosed,
    MemberExited,
    MemberStarted,
    ReportExit,
    Scanned,
    StartFailed,
    StopAsked,
    TerminateAsked,
    TerminateMember,
    Tick,
    parse_command,
)
from executor_agent.core.stop_sequence import DEPARTURE_TIMEOUT, Phase, StopSequence
from executor_agent.core.supervision import (
    AGENT_SILENT,
    LIFELINE_CLOSED,
    MEMBER_EXITED,
)

SPARE_AGENT = KillRound(agent_too=False)
ALL = KillRound(agent_too=True)
CLEAN = Scanned(remaining=0, childless=False)
CHILDLESS = Scanned(remaining=0, childless=True)


def running(grace: float = 5.0) -> StopSequence:
    sequence = StopSequence(grace=grace, term_timeout=1.0, kill_timeout=10.0, report_timeout=3.0)
    assert sequence.handle(AgentStarted(), 0.0) == ()
    assert sequence.handle(MemberStarted(), 0.0) == ()
    assert sequence.next_deadline() is None
    return sequence


def at(*phases: Phase) -> StopSequence:
    """A sequence that was stopped at 0 with a grace of 5 and has come this far."""
    sequence = running()
    steps: dict[Phase, tuple[Event, float]] = {
        Phase.GRACE: (AnchorDied("task"), 0.0),
        Phase.TERMINATING: (Tick(), 5.0),
        Phase.KILLING: (Tick(), 6.0),
        Phase.REPORTING: (CLEAN, 6.0),
    }
    for phase, (event, now) in steps.items():
        sequence.handle(event, now)
        if phase is Phase.REPORTING:
            sequence.handle(event, now)
        assert sequence.phase is phase
        if phase in phases:
            break
    return sequence


def test_the_whole_sequence_step_by_step() -> None:
    sequence = running()
    assert sequence.handle(AnchorDied("executor"), 10.0) == (AnnounceStop("executor died", 5.0),)
    assert sequence.next_deadline() == 15.0
    assert sequence.handle(Tick(), 14.9) == ()
    assert sequence.handle(Tick(), 15.0) == (TerminateMember(),)
    assert sequence.next_deadline() == 16.0
    assert sequence.handle(Tick(), 16.0) == (SPARE_AGENT,)
    assert sequence.handle(Scanned(3, childless=False), 16.0) == ()
    assert sequence.next_deadline() == pytest.approx(16.001)
    assert sequence.handle(MemberExited(), 16.0005) == ()
    assert sequence.handle(Tick(), 16.0005) == (SPARE_AGENT,), (
        "woken by a death: look again at once"
    )
    assert sequence.handle(CLEAN, 16.001) == (SPARE_AGENT,), "one empty scan proves nothing"
    assert sequence.handle(CLEAN, 16.001) == (ReportExit("sweep"),)
    assert sequence.stop_seconds == pytest.approx(6.001)
    assert sequence.next_deadline() == pytest.approx(19.001)
    assert sequence.handle(AgentExited("exited with code 0"), 16.1) == (ALL,)
    assert sequence.handle(CHILDLESS, 16.1) == (Conclude("kernel"),)
    assert sequence.phase is Phase.ENDED
    assert sequence.next_deadline() is None
    assert sequence.reason == "executor died"


def test_with_a_grace_of_0_sigterm_is_left_out() -> None:
    """TensorFlow takes 0.4 s to die of it and nothing is gained."""
    effects = running(grace=0.0).handle(LifelineClosed(), 1.0)
    assert effects == (SPARE_AGENT, AnnounceStop(LIFELINE_CLOSED, 0.0))


@pytest.mark.parametrize("phase", [Phase.GRACE, Phase.TERMINATING])
def test_a_member_that_leaves_during_its_grace_leaves_no_grace_to_its_descendants(
    phase: Phase,
) -> None:
    """O6."""
    sequence = at(phase)
    assert sequence.handle(MemberExited(), 5.1) == (SPARE_AGENT,)
    assert sequence.phase is Phase.KILLING
    assert sequence.reason == "task died", "the first reason stays"


def test_a_members_own_exit_is_a_reason() -> None:
    """E1."""
    effects = running().handle(MemberExited(), 1.0)
    assert effects == (SPARE_AGENT, AnnounceStop(MEMBER_EXITED, 0.0))


def test_an_exit_by_the_kernels_dead_man_signal_is_the_tasks_doing() -> None:
    sequence = running(grace=0.0)
    sequence.handle(MemberExited(let_go=True), 1.0)
    assert sequence.reason == LIFELINE_CLOSED
    sequence.handle(AnchorDied("task"), 1.0)
    assert sequence.reason == "task died", "the same end, seen better"


@pytest.mark.parametrize(
    "event, reason",
    [
        (AnchorDied("daemon"), "daemon died"),
        (LifelineClosed(), LIFELINE_CLOSED),
        (TerminateAsked(), "sentinel was told to terminate"),
        (AgentExited("exited with code 1"), "agent exited with code 1"),
        (StopAsked(None, "preempted"), "preempted"),
    ],
)
def test_every_other_reason_leads_into_the_same_grace(event: Event, reason: str) -> None:
    sequence = running()
    assert sequence.handle(event, 2.0) == (AnnounceStop(reason, 5.0),)
    assert sequence.next_deadline() == 7.0


def test_a_later_stop_only_ever_shortens_the_grace() -> None:
    sequence = running()
    sequence.handle(StopAsked(60.0, "first"), 0.0)
    assert sequence.handle(StopAsked(600.0, "later"), 1.0) == ()
    assert sequence.next_deadline() == 60.0
    assert sequence.handle(AnchorDied("task"), 10.0) == ()
    assert sequence.next_deadline() == 15.0, "the task's death has the configured grace"
    assert sequence.handle(StopAsked(0.0, "fenced"), 11.0) == (SPARE_AGENT,)
    assert sequence.reason == "first"


def test_a_stop_without_grace_cuts_the_sigterm_phase_short() -> None:
    assert at(Phase.TERMINATING).handle(StopAsked(0.0, "fenced"), 5.1) == (SPARE_AGENT,)


def test_survivors_of_sigkill_are_left_behind_after_the_kill_timeout() -> None:
    """O12: a process in D state must not wedge us."""
    sequence = at(Phase.KILLING)
    assert sequence.handle(Scanned(1, childless=False), 15.9) == ()
    assert sequence.handle(Tick(), 16.0) == (SPARE_AGENT,)
    assert sequence.handle(Scanned(1, childless=False), 16.0) == (ReportExit("none"),)
    assert sequence.handle(AgentExited("exited with code 0"), 16.1) == (ALL,)
    assert sequence.handle(Scanned(1, childless=False), 16.2) == ()
    sequence.handle(Tick(), 17.1)
    assert sequence.handle(Scanned(1, childless=False), 17.1) == (Conclude("none"),)


def test_a_survivor_that_dies_late_upgrades_the_proof() -> None:
    sequence = at(Phase.KILLING)
    sequence.handle(Scanned(1, childless=False), 16.0)
    sequence.handle(AgentExited("exited with code 0"), 16.1)
    assert sequence.handle(CHILDLESS, 16.2) == (Conclude("kernel"),)


def test_an_unkillable_agent_does_not_spoil_the_members_proof() -> None:
    sequence = at(Phase.REPORTING)
    assert sequence.handle(Tick(), 9.0) == (ALL,), "its time to report is over"
    assert sequence.handle(Scanned(1, childless=False), 9.0) == ()
    assert sequence.handle(Scanned(1, childless=False), 19.0) == (Conclude("sweep"),)


def test_kill_rounds_slow_down_for_a_process_that_takes_long_to_go() -> None:
    sequence = at(Phase.KILLING)
    waits = []
    now = 6.0
    for _ in range(8):
        sequence.handle(Scanned(1, childless=False), now)
        due = sequence.next_deadline()
        assert due is not None
        waits.append(round(due - now, 3))
        now = due
    assert waits == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


@pytest.mark.parametrize("goodbye", [AgentDone(), ControlClosed()])
def test_an_agent_that_has_said_goodbye_has_a_moment_to_leave(goodbye: Event) -> None:
    sequence = at(Phase.REPORTING)
    assert sequence.handle(goodbye, 6.5) == ()
    assert sequence.next_deadline() == 6.5 + DEPARTURE_TIMEOUT
    assert sequence.handle(Tick(), 7.5) == (ALL,)


def test_a_goodbye_before_the_report_is_ignored() -> None:
    sequence = running()
    assert sequence.handle(AgentDone(), 1.0) == ()
    assert sequence.phase is Phase.WATCHING
    assert sequence.next_deadline() is None


def test_a_closed_control_socket_becomes_a_reason_only_when_no_exit_explains_it() -> None:
    sequence = running()
    assert sequence.handle(ControlClosed(), 1.0) == ()
    assert sequence.next_deadline() == 2.0
    explained = running()
    explained.handle(ControlClosed(), 1.0)
    explained.handle(AgentExited("exited with code 9"), 1.1)
    assert explained.reason == "agent exited with code 9"
    assert sequence.handle(Tick(), 2.0) == (AnnounceStop(AGENT_SILENT, 5.0),)


def test_an_agent_that_dies_during_the_stop_is_not_waited_for() -> None:
    sequence = at(Phase.KILLING)
    assert sequence.handle(AgentExited("was killed by signal 9"), 6.0) == ()
    assert sequence.handle(CHILDLESS, 6.0) == (ALL,)
    assert sequence.handle(CHILDLESS, 6.0) == (Conclude("kernel"),)


def test_what_cannot_be_started_ends_at_once() -> None:
    sequence = StopSequence(grace=5.0, term_timeout=1.0, kill_timeout=10.0, report_timeout=3.0)
    effects = sequence.handle(StartFailed("no space"), 0.0)
    assert effects == (SPARE_AGENT, AnnounceStop("cannot start: no space", 0.0))
    assert sequence.handle(CHILDLESS, 0.0) == (ALL,)
    assert sequence.handle(CHILDLESS, 0.0) == (Conclude("kernel"),)


EVENTS = st.one_of(
    st.builds(MemberExited, st.booleans()),
    st.builds(AnchorDied, st.sampled_from(["task", "daemon", "executor"])),
    st.builds(StopAsked, st.none() | st.floats(0, 100), st.just("asked")),
    st.builds(Scanned, st.integers(0, 2), st.booleans()),
    st.sampled_from(
        [LifelineClosed(), AgentExited("left"), ControlClosed(), TerminateAsked(), AgentDone()]
    ),
    st.just(Tick()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 3)), max_size=40))
def test_whatever_happens_a_stop_is_bounded_and_concludes_once(
    steps: list[tuple[Event, float]],
) -> None:
    sequence, now = running(), 0.0
    effects: list[Effect] = []
    for event, pause in steps:
        now += pause
        before = sequence.next_deadline() if sequence.phase is Phase.GRACE else None
        effects += sequence.handle(event, now)
        after = sequence.next_deadline()
        if sequence.phase is Phase.GRACE and before is not None:
            assert after is not None
            assert after <= before, "a grace never grows"
        if sequence.phase not in (Phase.WATCHING, Phase.ENDED):
            assert after is not None, "no wait without a deadline"
    # Left to itself, with a process that never dies, it still comes to its end.
    began_at = now
    if sequence.phase is Phase.WATCHING:
        effects += sequence.handle(TerminateAsked(), now)
    while sequence.phase is not Phase.ENDED:
        due = sequence.next_deadline()
        assert due is not None
        now = max(now, due)
        effects += sequence.handle(Tick(), now)
        effects += sequence.handle(Scanned(1, childless=False), now)
    assert now - began_at <= 100 + 1 + 10 + 3 + 10 + 0.1
    assert sum(isinstance(effect, Conclude) for effect in effects) == 1
    assert sum(isinstance(effect, AnnounceStop) for effect in effects) == 1
    assert sequence.handle(Tick(), now) == ()


@pytest.mark.parametrize(
    "datagram, event",
    [
        (b'{"command": "stop", "grace": 2, "reason": "why"}', StopAsked(2.0, "why")),
        (b'{"command": "stop", "grace": -2, "reason": "why"}', StopAsked(0.0, "why")),
        (b'{"command": "stop", "grace": "x"}', StopAsked(None, "agent asked to stop")),
        (b'{"command": "stop", "grace": NaN, "reason": "why"}', StopAsked(None, "why")),
        (b'{"command": "done"}', AgentDone()),
    ],
)
def test_commands_of_the_agent(datagram: bytes, event: Event) -> None:
    assert parse_command(datagram) == event


@pytest.mark.parametrize("datagram", [b"", b"[]", b"{}", b'{"command": "halt"}', b"\xff"])
def test_what_is_no_command_is_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError):
        parse_command(datagram)
