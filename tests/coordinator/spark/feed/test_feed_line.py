"""What a user sees while members are fed."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from coordinator.core.model import Cause, Failure, Roles
from coordinator.spark.feed.progress import FeedLine, FeedProgress
from tests.coordinator.spark.feed.fake_feeding import view

CLEAR = "\r\x1b[2K"
RUN = view(Roles(worker=2))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(line: FeedLine | None, times: list[float]) -> FeedProgress:
    return FeedProgress(line, "input", 3, 2, lambda: times.pop(0))


def test_on_a_terminal_the_line_of_the_run_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    line = FeedLine("mnist", stream)
    shown = progress(line, [0.0, 1.0, 2.0])
    shown.show(1, 0)
    shown.show(2, 1_000)
    line.show(RUN)  # the run's own news give way
    shown.show(2, 421_800)
    assert stream.getvalue().split(CLEAR) == [
        "[mnist] feeding input: epoch 1/3, 0 rows, 2 workers",
        "[mnist] feeding input: epoch 2/3, 1,000 rows, 1,000 rows/s, 2 workers",
        "[mnist] feeding input: epoch 2/3, 421,800 rows, 210,900 rows/s, 2 workers",
    ]
    shown.close()
    line.show(RUN)
    assert stream.getvalue().split(CLEAR)[-1] == "[mnist] 2 of 2 members running"


def test_trouble_is_shown_in_any_case() -> None:
    stream = Terminal()
    line = FeedLine("mnist", stream)
    progress(line, [0.0]).show(1, 0)
    line.show(replace(RUN, failure=Failure(Cause.LOST_CONTACT, "worker:1 was lost")))
    assert CLEAR in stream.getvalue()


def test_in_a_log_each_epoch_is_a_line() -> None:
    stream = io.StringIO()
    shown = progress(FeedLine("mnist", stream), [float(second) for second in range(4)])
    for epoch, rows in ((1, 0), (1, 10), (1, 20), (2, 30)):
        shown.show(epoch, rows)
    texts = [line.partition("epoch ")[2] for line in stream.getvalue().splitlines()]
    assert texts == ["1/3, 0 rows, 2 workers", "2/3, 30 rows, 10 rows/s, 2 workers"]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    shown = progress(None, [0.0, 100.0, 101.0])
    for rows in (0, 1_000_000, 1_000_500):
        shown.show(1, rows)
    assert "500 rows/s" in shown._text(1, 1_000_500)
