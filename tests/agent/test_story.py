"""The words of supervision: one line a decision, with who died, who noticed, what was signalled."""

from __future__ import annotations

import pytest

from executor_agent.core import stop_events as on
from executor_agent.core.stop_sequence import StopSequence
from executor_agent.core.story import LONGEST_LINE, Line, Story, ended, formatted, killed
from executor_agent.core.supervision import ExitFacts, Proof, Survivor

WATCH = {"task": (123, 1.0), "executor": (77, 2.0)}


def facts(proof: Proof, *survivors: Survivor, seconds: float = 0.0341) -> ExitFacts:
    return ExitFacts(
        member="worker:1",
        run_id="a1b2",
        incarnation="12-ab",
        pid=456,
        exit_code=None,
        signal=9,
        killed_by_us=True,
        reason="task died",
        survivors=survivors,
        proof=proof,
        max_rss_bytes=0,
        user_seconds=0.0,
        system_seconds=0.0,
        stop_seconds=seconds,
        ended_at=0.0,
    )


class Play:
    """A sequence and its story, as the sentinel runs the two."""

    def __init__(self, grace: float = 5.0) -> None:
        self.sequence = StopSequence(
            grace=grace, term_timeout=1.0, kill_timeout=10.0, report_timeout=3.0
        )
        self.story = Story(WATCH)
        self.story.started(99, 455, 456, "host-a")
        for event in (on.AgentStarted(), on.MemberStarted()):
            assert self.decided(event, 0.0) == []

    def decided(self, event: on.Event, now: float) -> list[Line]:
        return self.story.decided(event, self.sequence.handle(event, now), now)


def test_the_first_line_names_everybody() -> None:
    line = Story(WATCH).started(99, 455, 456, "host-a")
    assert line == Line(
        "pid 99 on host-a started agent (pid 455) and member (pid 456), "
        "watching task (pid 123), executor (pid 77)"
    )


def test_a_dead_task_is_told_with_its_pid_and_with_who_noticed() -> None:
    """O1."""
    told = Play().decided(on.AnchorDied("task"), 100.0)
    assert told == [Line("task (pid 123) died, seen by pidfd; stopping, grace 5 s")]


def test_a_signal_is_told_with_how_long_it_was_waited_for() -> None:
    play = Play()
    play.decided(on.AnchorDied("task", "polling"), 100.0)
    told = play.decided(on.Tick(), 105.04)
    assert told == [Line("SIGTERM to the member's group 456 after 5.0 s of grace")]


@pytest.mark.parametrize(
    "event, text",
    [
        (
            on.LifelineClosed(),
            "task (pid 123) died or let go, seen by its lifeline; stopping, grace 5 s",
        ),
        (on.AnchorDied("daemon"), "daemon died, seen by pidfd; stopping, grace 5 s"),
        (on.TerminateAsked(), "SIGTERM came in; stopping, grace 5 s"),
        (on.AgentExited("exited with code 0"), "agent exited with code 0; stopping, grace 5 s"),
        (
            on.StopAsked(2.0, "peer lost"),
            "agent asks for a stop within 2 s: peer lost; stopping, grace 2 s",
        ),
        (on.StartFailed("no memory"), "cannot start: no memory; stopping, grace 0 s"),
        (
            on.MemberExited(how="was killed by signal 11"),
            "member (pid 456) was killed by signal 11; ending what it left",
        ),
        (
            on.MemberExited(let_go=True, how="was killed by signal 9"),
            "task (pid 123) let go, and member (pid 456) was killed by signal 9; "
            "stopping, grace 0 s",
        ),
    ],
)
def test_every_reason_has_its_words(event: on.Event, text: str) -> None:
    assert Play().decided(event, 0.0) == [Line(text)]


def test_an_agent_that_falls_silent_is_told_though_nothing_happens() -> None:
    play = Play()
    assert play.decided(on.ControlClosed(), 0.0) == []
    assert play.decided(on.Tick(), 1.0) == [
        Line("agent closed its control socket; stopping, grace 5 s")
    ]


def test_a_member_that_ends_well_is_routine() -> None:
    (line,) = Play().decided(on.MemberExited(how="exited with code 0"), 0.0)
    assert line.routine


def test_what_else_happens_during_a_stop_is_told_as_routine() -> None:
    """Who died first is the story; who followed may explain it."""
    play = Play()
    play.decided(on.LifelineClosed(), 0.0)
    assert play.decided(on.AnchorDied("task"), 0.1) == [
        Line("task (pid 123) died, seen by pidfd, in a stop that is under way", routine=True)
    ]


def test_what_is_seen_twice_is_told_once() -> None:
    play = Play()
    play.decided(on.AnchorDied("task"), 0.0)
    assert play.decided(on.LifelineClosed(), 0.1) != []
    assert play.decided(on.LifelineClosed(), 0.2) == []
    assert play.decided(on.LifelineClosed("the parent-death signal"), 0.3) != []


def test_an_agent_that_leaves_in_order_is_not_worth_a_line() -> None:
    play = Play()
    play.decided(on.MemberExited(how="exited with code 0"), 0.0)
    assert play.decided(on.AgentExited("exited with code 0"), 0.1) == []
    assert play.decided(on.AgentExited("was killed by signal 9"), 0.1) != []


def test_a_hand_over_is_told() -> None:
    assert Play().decided(on.HandOverAsked(), 0.0) == [
        Line("task hands over; now tied to the executor alone", routine=True)
    ]


def test_the_killed_are_named_and_the_rest_counted() -> None:
    assert killed(["457 sleep"], 1).text == "SIGKILL to 1 process: 457 sleep"
    assert killed(["1 a", "2 b"], 5).text == "SIGKILL to 5 processes: 1 a, 2 b, 3 more"


def test_the_end_says_how_long_it_took_and_what_is_proven() -> None:
    """O12: who survives is named, and in which state."""
    assert ended(facts("kernel"), []).text == "all gone after 0.034 s (proof: kernel)"
    assert "(proof: sweep)" in ended(facts("sweep"), []).text
    assert "nothing is proven" in ended(facts("none"), []).text
    left = (Survivor(457, "sleep"), Survivor(458, "sleep"))
    labels = ["457 sleep (state D)", "458 sleep (state D)"]
    assert ended(facts("none", *left, seconds=10.0), labels).text == (
        "2 processes survive SIGKILL after 10.000 s: 457 sleep (state D), 458 sleep (state D)"
    )
    one = ended(facts("none", left[0], seconds=10.0), labels[:1])
    assert one.text.startswith("1 process survives SIGKILL after 10.000 s: 457 sleep")


def test_a_line_has_moment_marker_and_speaker() -> None:
    line = formatted("2026-11-23T07:00:00.123Z", "a1b2/worker:1/12-ab", "sentinel", "all gone")
    assert line == b"2026-11-23T07:00:00.123Z [a1b2/worker:1/12-ab] sentinel: all gone\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1b[2Jb", "a\u2028b", "a\x00b"])
def test_text_from_elsewhere_cannot_make_a_line_of_its_own(text: str) -> None:
    line = formatted("now", "run", "agent", text)
    assert line.decode().isprintable() is False  # its own newline
    assert line.decode()[:-1].isprintable()


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "\U0001f40d" * 5_000, "\udc80" * 50])
def test_a_line_fits_into_a_pipe_as_a_whole(text: str) -> None:
    line = formatted("now", "run", "agent", text)
    assert len(line) <= LONGEST_LINE
    assert line.endswith(b"\n")
    line.decode()
