"""The hand-over from task to executor, piece by piece: the decision, the watch, the task's ear."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Iterator

import pytest

from executor_agent.anchors import Anchors
from executor_agent.core.stop_events import (
    AgentStarted,
    AnchorDied,
    Event,
    HandOverAsked,
    LifelineClosed,
    MemberStarted,
    StopAsked,
    TakeOver,
)
from executor_agent.core.stop_sequence import Phase, StopSequence
from executor_agent.core.supervision import HAND_OVER, TAKEN_OVER
from executor_agent.processes import ProcessIdentity, identity_of, my_identity
from executor_agent.sentinel_handle import DetachedSentinel


def running() -> StopSequence:
    sequence = StopSequence(grace=5.0, term_timeout=1.0, kill_timeout=10.0, report_timeout=3.0)
    for event in (AgentStarted(), MemberStarted()):
        assert sequence.handle(event, 0.0) == ()
    return sequence


def test_a_member_that_nothing_is_wrong_with_is_taken_over() -> None:
    sequence = running()
    assert sequence.handle(HandOverAsked(), 1.0) == (TakeOver(),)
    assert sequence.phase is Phase.WATCHING
    assert sequence.next_deadline() is None


@pytest.mark.parametrize(
    "reason", [AnchorDied("task"), LifelineClosed(), StopAsked(grace=60.0, reason="cancelled")]
)
def test_a_stop_is_not_taken_back_by_a_hand_over(reason: Event) -> None:
    sequence = running()
    sequence.handle(reason, 1.0)
    before = (sequence.phase, sequence.next_deadline(), sequence.reason)
    assert sequence.handle(HandOverAsked(), 1.0) == ()
    assert (sequence.phase, sequence.next_deadline(), sequence.reason) == before


@pytest.mark.parametrize(
    "reason, text",
    [(AnchorDied("task"), "task died"), (AnchorDied("executor"), "executor died")],
)
def test_a_death_that_was_seen_with_the_hand_over_still_counts(reason: Event, text: str) -> None:
    """One look may bring both; then the task, or the executor, was dead before the answer."""
    sequence = running()
    sequence.handle(HandOverAsked(), 1.0)
    sequence.handle(reason, 1.0)
    assert (sequence.phase, sequence.reason) == (Phase.GRACE, text)


class Watch:
    """Anchors with a task on the other end of lifeline and voice."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.anchors = Anchors(self.selector)
        self.lifeline_read, self.lifeline = os.pipe()
        self.voice, self.voice_write = os.pipe()
        self.anchors.hold_lifeline(self.lifeline_read)

    def look(self) -> list[Event]:
        found = [event for key, _ in self.selector.select(0) for event in key.data()]
        return [*found, *self.anchors.look()]


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.selector.close()
    for fd in (watch.lifeline_read, watch.lifeline, watch.voice, watch.voice_write):
        try:
            os.close(fd)
        except OSError:
            continue  # the test has closed it, or was to see it closed


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_task_hears_who_the_sentinel_is_and_that_it_has_taken_over(watch: Watch) -> None:
    watch.anchors.introduce(watch.voice_write)
    me = my_identity()
    assert json.loads(os.read(watch.voice, 100)) == [me.pid, me.create_time]
    os.write(watch.lifeline, HAND_OVER)
    assert watch.look() == [HandOverAsked()]
    assert watch.anchors.take_over() == []
    assert os.read(watch.voice, 100) == TAKEN_OVER
    assert os.read(watch.voice, 100) == b"", "the voice is closed: nothing of the task is kept"


def test_once_taken_over_only_the_executor_is_watched(
    watch: Watch, process: subprocess.Popen[bytes]
) -> None:
    who = identity_of(process.pid)
    assert who is not None
    for name in ("task", "daemon", "executor"):
        assert watch.anchors.watch(name, who) == []
    watch.anchors.introduce(watch.voice_write)
    assert watch.anchors.take_over() == []
    os.close(watch.lifeline)
    process.kill()
    assert watch.selector.select(20)
    assert watch.look() == [AnchorDied("executor")]
    assert watch.look() == []


def test_polled_anchors_are_dropped_as_well(
    watch: Watch, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a seccomp profile refuses pidfds."""
    monkeypatch.setattr("executor_agent.anchors.open_pidfd", lambda identity: None)
    who = identity_of(process.pid)
    assert who is not None
    for name in ("task", "daemon", "executor"):
        watch.anchors.watch(name, who)
    watch.anchors.introduce(watch.voice_write)
    watch.anchors.take_over()
    process.kill()
    process.wait()
    assert watch.look() == [AnchorDied("executor", "polling")]


def test_a_task_that_died_asking_has_died(watch: Watch) -> None:
    """It was killed between its question and our answer: Spark will start another attempt."""
    watch.anchors.introduce(watch.voice_write)
    os.write(watch.lifeline, HAND_OVER)
    os.close(watch.lifeline)
    os.close(watch.voice)
    assert watch.look() == [HandOverAsked()]
    assert watch.anchors.take_over() == [LifelineClosed()]
    assert watch.look() == [LifelineClosed()], "the lifeline is still watched"


def test_what_is_no_hand_over_hands_nothing_over(watch: Watch) -> None:
    os.write(watch.lifeline, b"hello")
    assert watch.look() == []


def test_a_sentinel_without_a_voice_takes_nothing_over(watch: Watch) -> None:
    """Anchor = task: whatever comes through its lifeline, its end still ends the member."""
    os.write(watch.lifeline, HAND_OVER)
    assert watch.look() == [HandOverAsked()]
    assert watch.anchors.take_over() == []
    os.close(watch.lifeline)
    assert watch.look() == [LifelineClosed()]


def starter(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv or ("true",))


def test_a_sentinel_that_ends_before_it_says_a_word_did_not_start() -> None:
    voice, voice_write = os.pipe()
    os.close(voice_write)
    process = starter("sleep", "600")
    with pytest.raises(ChildProcessError, match="did not start, see the executor's stderr"):
        DetachedSentinel(process, voice)
    assert process.returncode is not None, "whoever was to start it is gone, too, and buried"


def test_a_sentinel_that_says_nothing_in_time_did_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("executor_agent.sentinel_handle._START_TIMEOUT", 0.01)
    voice, voice_write = os.pipe()
    process = starter("sleep", "600")
    with pytest.raises(TimeoutError, match="did not start within"):
        DetachedSentinel(process, voice)
    os.close(voice_write)
    assert process.returncode is not None


@pytest.mark.parametrize("said, takes_over", [(TAKEN_OVER, True), (b"", False), (b"taken", False)])
def test_a_sentinel_that_has_ended_took_over_if_it_said_so(said: bytes, takes_over: bool) -> None:
    voice, voice_write = os.pipe()
    os.write(voice_write, b"[7, 1.5]\n" + said)
    os.close(voice_write)
    sentinel = DetachedSentinel(starter(), voice)
    assert sentinel.identity == ProcessIdentity(7, 1.5)
    assert sentinel.takes_over(20) is takes_over
    assert sentinel.wait(20)
    sentinel.close()


def test_a_sentinel_that_keeps_silent_takes_nothing_over() -> None:
    voice, voice_write = os.pipe()
    os.write(voice_write, b"[7, 1.5]\n")
    sentinel = DetachedSentinel(starter(), voice)
    assert not sentinel.takes_over(0.01)
    assert not sentinel.wait(0.01), "its end of the pipe is open: it lives"
    os.close(voice_write)
    assert sentinel.wait(20)
    sentinel.close()
