"""What a user sees while a run forms and runs."""

from __future__ import annotations

import io
import sys
import threading
from dataclasses import replace

import pytest

from coordinator.core.model import (
    Cause,
    MemberId,
    MemberPhase,
    MemberView,
    Restart,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark import progress
from coordinator.spark.progress import ProgressLine

MEMBERS = tuple(
    MemberView(MemberId.parse(name), MemberPhase.EXPECTED, 0.0) for name in ("worker:0", "worker:1")
)
FORMING = RunView(
    RunId("run"), RunSpec(Roles(worker=2), name="mnist"), RunPhase.FORMING, 0, MEMBERS, 0.0, 1
)
RUNNING = replace(
    FORMING,
    phase=RunPhase.RUNNING,
    members=tuple(replace(each, phase=MemberPhase.RUNNING) for each in MEMBERS),
)
CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("COLUMNS", "200")
    return monkeypatch


def at_step(step: int) -> RunView:
    return replace(RUNNING, members=tuple(replace(each, step=step) for each in RUNNING.members))


def test_on_a_terminal_one_line_is_overwritten(columns: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line = ProgressLine("mnist", stream)
    line.show(FORMING)
    line.show(FORMING)
    line.show(RUNNING)
    line.close()
    line.close()
    first, second = stream.getvalue().split(CLEAR)
    assert first.startswith("[mnist] 0 of 2 members ready; waiting for worker:0, worker:1")
    assert second == "[mnist] 2 of 2 members running\n"


def test_on_a_narrow_terminal_the_line_stays_one(columns: pytest.MonkeyPatch) -> None:
    """Only one row can be taken back: a longer line would fill the screen with itself."""
    columns.setenv("COLUMNS", "40")
    stream = Terminal()
    ProgressLine("mnist", stream).show(FORMING)
    assert stream.getvalue() == "[mnist] 0 of 2 members ready; waiting f"
    assert len(stream.getvalue()) == 39


def test_a_text_of_several_lines_becomes_one_on_a_terminal(columns: pytest.MonkeyPatch) -> None:
    members = tuple(
        replace(each, task=replace(each.task, failed=True, message="Job aborted\n\tat java"))
        for each in MEMBERS
    )
    stream = Terminal()
    ProgressLine("mnist", stream).show(replace(FORMING, members=members))
    assert "\n" not in stream.getvalue()
    assert "Job aborted at java" in stream.getvalue()


def test_a_sentence_stands_on_a_line_of_its_own(columns: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line = ProgressLine("mnist", stream)
    line.show(RUNNING)
    line.say("waiting for another run")
    line.show(RUNNING)
    line.close()
    running = "[mnist] 2 of 2 members running"
    assert stream.getvalue() == f"{running}{CLEAR}[mnist] waiting for another run\n{running}\n"


def test_a_members_line_goes_above_the_line_of_progress(columns: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line = ProgressLine("mnist", stream)
    line.show(RUNNING)
    line.print_line("[worker:1] step 1")
    line.close()
    running = "[mnist] 2 of 2 members running"
    assert stream.getvalue() == f"{running}{CLEAR}[worker:1] step 1\n{running}\n"
    plain = io.StringIO()
    ProgressLine("mnist", plain).print_line("[worker:1] step 1")
    assert plain.getvalue() == "[worker:1] step 1\n"


def test_nothing_shown_leaves_nothing(columns: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    ProgressLine("mnist", stream).close()
    assert stream.getvalue() == ""


def test_in_a_log_a_line_comes_with_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    line = ProgressLine("mnist", stream)
    for run in (FORMING, FORMING, RUNNING, at_step(1), at_step(2)):
        line.show(run)
    line.close()
    lines = stream.getvalue().splitlines()
    assert [text.split(";")[0] for text in lines] == [
        "[mnist] 0 of 2 members ready",
        "[mnist] 2 of 2 members running",
    ]


def test_in_a_log_what_lasts_is_told_again_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    line = ProgressLine("mnist", stream)
    for second in range(31):
        now = 1000.0 + second
        line.show(at_step(second + 1))
    lines = stream.getvalue().splitlines()
    assert [text.rpartition(" ")[2] for text in lines] == ["1", "11", "21", "31"]


def closed_stream() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class BrokenPipe(Terminal):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class Ascii(Terminal):
    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


class NoStreamOfPythons:
    """As some consoles have it: no isatty."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


@pytest.mark.parametrize(
    "stream", [closed_stream(), BrokenPipe(), Ascii(), NoStreamOfPythons()], ids=type
)
def test_a_stream_that_takes_nothing_ends_no_training(stream: io.StringIO) -> None:
    line = ProgressLine("num\N{LATIN SMALL LETTER E WITH ACUTE}ro", stream)
    line.show(RUNNING)
    line.say("something")
    line.close()


def test_a_process_without_standard_error_trains_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    line = ProgressLine("mnist")
    line.show(RUNNING)
    line.close()


def test_lines_of_two_threads_do_not_mix() -> None:
    stream = io.StringIO()
    line = ProgressLine("mnist", stream)
    threads = [
        threading.Thread(target=lambda: [line.say("x" * 100) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stream.getvalue().splitlines()) == {"[mnist] " + "x" * 100}


def test_a_run_that_forms_again_says_why() -> None:
    stream = io.StringIO()
    restart = Restart(0.0, 1, Cause.KILLED_BY_SIGNAL, "worker:1 was killed by signal 9")
    ready = (replace(MEMBERS[0], phase=MemberPhase.READY), MEMBERS[1])
    ProgressLine("mnist", stream).show(
        replace(FORMING, members=ready, restarts=(restart,), restart_count=1)
    )
    said = "[mnist] restart 1: worker:1 was killed by signal 9; 1 of 2 members ready; waiting for "
    assert stream.getvalue().startswith(said)


def test_a_long_reason_leaves_room_for_what_is_waited_for() -> None:
    stream = io.StringIO()
    restart = Restart(0.0, 1, Cause.USER_EXCEPTION, "worker:1 raised\n" + 200 * "x")
    ProgressLine("mnist", stream).show(replace(FORMING, restarts=(restart,), restart_count=1))
    assert "raised xxx" in stream.getvalue()
    assert "x...; 0 of 2 members ready" in stream.getvalue()
