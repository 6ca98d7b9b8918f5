"""E3: what the driver keeps of a run for whoever reads its members' lines, at whatever speed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

from coordinator.core.errors import LogUnavailable
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
from coordinator.spark.log_following import lines
from coordinator.spark.session import RunSession

WORKER = MemberId.parse("worker:0")
LOST = Restart(0.0, 1, Cause.PREEMPTED, "killed", WORKER)


def picture(attempt: int, phase: MemberPhase, tail: str = "", restarts: int = 0) -> RunView:
    report = ExitReport(Cause.PREEMPTED, log_tail=tail) if phase.has_ended else None
    member = MemberView(
        WORKER,
        phase,
        0.0,
        IncarnationId(f"a{attempt}"),
        ExecutorInfo("host-a", "boot", 1, directory=f"/tmp/a{attempt}"),
        exit=report,
    )
    return RunView(
        RunId("run"), RunSpec(Roles(worker=1)), RunPhase.RUNNING, 1, (member,), 0.0, 1,
        restarts=(LOST,) * restarts, restart_count=restarts,
    )  # fmt: skip


class Driver:
    """A session that is told of pictures by the test; members' agents are gone when asked."""

    def __init__(self) -> None:
        self.session = RunSession(None, picture(1, MemberPhase.RUNNING), None)  # type: ignore[arg-type]
        self.saw: Callable[[RunView], None] = self.session._saw
        self.logs = {1: b"a1 begins\n"}

    def read(self, member: MemberId, max_bytes: int, offset: int | None) -> LogChunk:
        attempt = int(str(self.session.view.members[0].incarnation)[1:])
        if attempt not in self.logs:
            raise LogUnavailable("nobody attends")
        data = self.logs[attempt]
        return LogChunk(offset or 0, data[offset or 0 :], len(data), f"a{attempt}")

    def runs(self, attempt: int) -> None:
        self.saw(picture(attempt, MemberPhase.RUNNING, restarts=attempt - 1))

    def ends(self, attempt: int) -> None:
        tail = f"a{attempt} begins\na{attempt} ends"
        self.saw(picture(attempt, MemberPhase.EXITED, tail, restarts=attempt - 1))

    def lines(self) -> Iterator[str]:
        return lines(self.session, self.read)

    def is_over(self, attempt: int) -> None:
        last = picture(attempt, MemberPhase.EXITED, f"a{attempt} begins", restarts=attempt - 1)
        self.saw(replace(last, phase=RunPhase.SUCCEEDED))


def test_who_reads_nothing_for_a_while_finds_how_every_attempt_has_ended() -> None:
    driver = Driver()
    found = driver.lines()
    assert next(found) == "[worker:0] a1 begins"
    for attempt in (1, 2, 3):
        driver.ends(attempt)
        driver.runs(attempt + 1)
    driver.is_over(4)
    assert [line for line in found if not line.startswith("[tflease]")] == [
        "[worker:0] a1 ends",
        "[worker:0] a2 begins", "[worker:0] a2 ends",
        "[worker:0] a3 begins", "[worker:0] a3 ends",
        "[worker:0] a4 begins",
    ]  # fmt: skip


def test_of_very_many_ends_the_latest_are_kept_and_the_others_told() -> None:
    driver = Driver()
    found = driver.lines()
    assert next(found) == "[worker:0] a1 begins"
    for attempt in range(1, 31):
        driver.ends(attempt)
        driver.runs(attempt + 1)
    driver.is_over(31)
    rest = list(found)
    (told,) = [line for line in rest if "more of its attempts" in line]
    assert told.startswith("[tflease] worker:0: lines are missing here: 13 more of")  # 2 to 14
    assert [line for line in rest if line.endswith("ends")] == [
        f"[worker:0] a{attempt} ends" for attempt in range(15, 31)
    ]


def test_who_stops_reading_is_forgotten() -> None:
    driver = Driver()
    found = driver.lines()
    assert next(found) == "[worker:0] a1 begins"
    assert len(driver.session._listeners) == 1
    del found
    gc.collect()
    assert len(driver.session._listeners) == 0
