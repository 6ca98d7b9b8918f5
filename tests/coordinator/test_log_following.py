"""E3, E4: members' lines as they come, through restarts, troubles, and to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from coordinator.core.errors import (
    CoordinatorUnavailable,
    InvalidRun,
    LimitExceeded,
    LogUnavailable,
    TfleaseError,
)
from coordinator.core.log_values import LogChunk
from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
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
from coordinator.log_following import PIECE_BYTES, follow

CHIEF, WORKER = MemberId.parse("chief:0"), MemberId.parse("worker:0")


@dataclass
class Played:
    """A run whose events happen one by one, while nothing is left to read."""

    events: list[Callable[[Played], object]]
    run: RunView = field(init=False)
    logs: dict[str, bytes] = field(default_factory=dict)
    now: float = 0.0
    trouble: TfleaseError | None = None
    gone: str = ""
    largest: int = 0

    def __post_init__(self) -> None:
        members = tuple(MemberView(each, MemberPhase.EXPECTED, 0.0) for each in (CHIEF, WORKER))
        spec = RunSpec(Roles(chief=1, worker=1))
        self.run = RunView(RunId("run"), spec, RunPhase.RUNNING, 1, members, 0.0, 1)

    # what happens

    def member(self, which: MemberId, **changes: object) -> None:
        members = tuple(
            replace(each, **changes) if each.id == which else each  # type: ignore[arg-type]
            for each in self.run.members
        )
        self.run = replace(self.run, members=members)

    def comes(self, which: MemberId, attempt: str = "a1") -> None:
        executor = ExecutorInfo("host-a", "boot", 1, directory=f"/tmp/{attempt}")
        phase = MemberPhase.RUNNING
        self.member(
            which,
            incarnation=IncarnationId(f"{which}-{attempt}"),
            executor=executor,
            phase=phase,
            exit=None,
        )
        self.logs.setdefault(f"{which}-{attempt}", b"")

    def prints(self, which: MemberId, data: bytes) -> None:
        self.logs[self._attempt(which)] += data

    def ends(self, which: MemberId, data: bytes = b"") -> None:
        self.prints(which, data)
        tail = self.logs[self._attempt(which)][-8192:].decode().strip()
        report = ExitReport(Cause.COMPLETED, log_tail=tail)
        self.member(which, phase=MemberPhase.EXITED, exit=report)

    def is_over(self) -> None:
        self.run = replace(self.run, phase=RunPhase.SUCCEEDED)

    def _attempt(self, which: MemberId) -> str:
        return str(next(each.incarnation for each in self.run.members if each.id == which))

    # a source

    def view(self) -> RunView:
        return self.run

    def read(self, member: MemberId, offset: int | None, max_bytes: int) -> LogChunk:
        if self.trouble is not None:
            raise self.trouble
        attempt = self._attempt(member)
        log = self.logs[attempt]
        start = max(0, len(log) - max_bytes) if offset is None else min(offset, len(log))
        data = log[start : start + max_bytes]
        self.largest = max(self.largest, len(data))
        return LogChunk(start, data, len(log), attempt)

    def lost(self) -> str:
        return self.gone

    def wait(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1e6, "nothing happens any more"
        if self.events and self.now >= 10.0 * self.waited:
            self.waited += 1
            self.events.pop(0)(self)

    waited = 1

    def lines(self, member: str | None = None, last_bytes: int | None = None) -> list[str]:
        return list(follow(self, member, last_bytes=last_bytes, clock=lambda: self.now))


def finish(*events: Callable[[Played], object]) -> Played:
    """With an end, in which both have ended."""

    def end(run: Played) -> None:
        for member in run.run.members:
            if member.incarnation is not None and not member.phase.has_ended:
                run.ends(member.id)
        run.is_over()

    return Played([*events, end])


def test_lines_come_with_the_members_names_until_the_run_has_ended() -> None:
    run = finish(
        lambda run: run.comes(CHIEF),
        lambda run: run.prints(CHIEF, b"one\ntw"),
        lambda run: run.comes(WORKER),
        lambda run: run.prints(WORKER, b"late\n"),
        lambda run: run.prints(CHIEF, b"o\nlast words"),
    )
    assert run.lines() == [
        "[chief:0] one",
        "[worker:0] late",
        "[chief:0] two",
        "[chief:0] last words",
    ]


def test_of_one_member_the_lines_are_as_they_were_printed() -> None:
    run = finish(
        lambda run: (run.comes(CHIEF), run.comes(WORKER)),
        lambda run: (run.prints(CHIEF, b"one\n"), run.prints(WORKER, b"two\n")),
    )
    assert run.lines("worker:0") == ["two"]


def test_somebody_who_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(InvalidRun, match="no member 'worker:7': chief:0, worker:0"):
        follow(Played([]), "worker:7")


def test_a_long_log_is_read_in_pieces() -> None:
    written = b"".join(b"line %d\n" % number for number in range(100_000))
    run = finish(lambda run: (run.comes(CHIEF), run.prints(CHIEF, written)), lambda run: None)
    assert run.lines("chief:0") == written.decode().splitlines()
    assert run.largest == PIECE_BYTES


def test_only_the_last_lines_where_that_was_asked_for() -> None:
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\ntwo\nthree\n")),
        lambda run: run.prints(CHIEF, b"four\n"),
    )
    assert run.lines("chief:0", last_bytes=6) == ["three", "four"]


def test_a_restart_is_said_and_the_next_attempts_log_goes_on() -> None:
    """Also when the next one has printed more by then than the last one ever had."""
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"step 1\n")),
        lambda run: run.ends(CHIEF, b"killed\n"),
        lambda run: (run.comes(CHIEF, "a2"), run.prints(CHIEF, b"step 1\nstep 2\nstep 3\n")),
    )
    assert run.lines("chief:0") == [
        "step 1", "killed", "[tflease] chief:0: started again, on host-a",
        "step 1", "step 2", "step 3",
    ]  # fmt: skip


def test_a_restart_that_was_not_seen_is_not_passed_over() -> None:
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"step 1\nhalf")),
        lambda run: (run.comes(CHIEF, "a2"), run.prints(CHIEF, b"again\n")),
    )
    assert run.lines("chief:0") == [
        "step 1",
        "half",
        "[tflease] chief:0: lines may be missing here: the last attempt's log is "
        "/tmp/a1/member.log on host-a",
        "[tflease] chief:0: started again, on host-a",
        "again",
    ]


def restart(member: MemberId | None = None) -> Restart:
    return Restart(0.0, 1, Cause.PREEMPTED, "killed", member, alone=member is not None)


def test_attempts_that_nobody_looked_at_are_told() -> None:
    """Who reads the lines has done something else for a while."""

    def miss_one(run: Played) -> None:
        run.comes(CHIEF, "a3")
        run.prints(CHIEF, b"third\n")
        others = restart(), restart(WORKER), restart(WORKER)
        run.run = replace(run.run, restarts=(restart(), *others), restart_count=4)

    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"first\n")),
        lambda run: run.ends(CHIEF),
        miss_one,
    )
    assert run.lines("chief:0") == [
        "first",
        "[tflease] chief:0: lines are missing here: 1 more of its attempts had ended before "
        "anybody looked at them",
        "[tflease] chief:0: started again, on host-a",
        "third",
    ]


def test_an_answer_of_the_next_attempt_is_not_taken_for_the_last_ones() -> None:
    """The picture of the run may be older than what reads find."""
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"old\n")),
        lambda run: setattr(run, "view", held(run)),
        lambda run: (run.comes(CHIEF, "a2"), run.prints(CHIEF, b"new and longer\n")),
        lambda run: delattr(run, "view"),
    )
    lines = run.lines("chief:0")
    assert [line for line in lines if not line.startswith("[tflease]")] == ["old", "new and longer"]


def held(run: Played) -> Callable[[], RunView]:
    now = run.run
    return lambda: now


def test_a_coordinator_that_is_away_for_long_is_said_once_and_nothing_is_lost() -> None:
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"before\n")),
        lambda run: setattr(run, "trouble", CoordinatorUnavailable("connection refused")),
        lambda run: run.prints(CHIEF, b"meanwhile\n"),
        lambda run: setattr(run, "trouble", None),
        lambda run: run.prints(CHIEF, b"after\n"),
    )
    assert run.lines("chief:0") == [
        "before",
        "[tflease] logs cannot be read now, and are read on later: connection refused",
        "[tflease] the coordinator answers again",
        "meanwhile",
        "after",
    ]


@pytest.mark.parametrize("trouble", [LimitExceeded("too much"), LogUnavailable("no session yet")])
def test_what_is_over_soon_is_not_worth_a_word(trouble: TfleaseError) -> None:
    def blink(run: Played) -> None:
        run.trouble = trouble
        run.events.insert(0, lambda run: setattr(run, "trouble", None))
        run.waited = int(run.now // 10)  # the next thing happens at once

    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"before\n")),
        blink,
        lambda run: run.prints(CHIEF, b"after\n"),
    )
    assert run.lines("chief:0") == ["before", "after"]


def test_a_lost_member_is_said_once_and_read_on_when_it_is_back() -> None:
    def lose(run: Played) -> None:
        run.member(CHIEF, phase=MemberPhase.LOST)
        run.trouble = LogUnavailable("nobody attends for chief:0, which is lost")

    def regain(run: Played) -> None:
        run.member(CHIEF, phase=MemberPhase.RUNNING)
        run.trouble = None
        run.prints(CHIEF, b"back\n")

    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\n")),
        lose,
        lambda run: run.prints(CHIEF, b"unheard\n"),
        regain,
        lambda run: None,
    )
    assert run.lines("chief:0") == [
        "one",
        "[tflease] chief:0: its log cannot be read now: nobody attends for chief:0, which is lost",
        "unheard",
        "back",
    ]


def test_what_a_fenced_member_has_printed_is_where_it_was() -> None:
    run = finish(
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\n")),
        lambda run: run.member(
            CHIEF, phase=MemberPhase.FENCED, exit=ExitReport(Cause.LOST_CONTACT)
        ),
    )
    assert run.lines("chief:0") == [
        "one",
        "[tflease] chief:0: the end of its log is not known here: /tmp/a1/member.log on host-a",
    ]


def test_a_tail_that_the_picture_leaves_out_is_asked_for() -> None:
    """Of a large run the pictures have no logs."""

    def end(run: Played) -> None:
        run.member(CHIEF, phase=MemberPhase.EXITED, exit=ExitReport(Cause.COMPLETED))
        tail = LogChunk(None, b"one\nlast", 8, run._attempt(CHIEF))
        run.read = lambda *asked: tail

    run = finish(lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\n")), end)
    assert run.lines("chief:0") == ["one", "last"]


def test_a_member_that_printed_nothing_is_not_worth_a_word() -> None:
    run = finish(lambda run: run.comes(CHIEF), lambda run: run.ends(CHIEF))
    assert run.lines("chief:0") == []


def test_a_run_that_is_lost_ends_the_lines_and_says_why() -> None:
    run = Played([
        lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\n")),
        lambda run: setattr(run, "gone", "its coordinator is gone"),
    ])  # fmt: skip
    *_, last = run.lines("chief:0")
    assert last == "[tflease] the run is not followed any more: its coordinator is gone"


def test_who_stops_reading_leaves_nothing_behind() -> None:
    run = finish(lambda run: (run.comes(CHIEF), run.prints(CHIEF, b"one\ntwo\n")))
    lines: Iterator[str] = follow(run, clock=lambda: run.now)
    assert next(lines) == "[chief:0] one"
    lines.close()  # type: ignore[attr-defined]
    assert list(lines) == []
