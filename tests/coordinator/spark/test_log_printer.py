"""E4: what members print is printed by a thread that nobody waits for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from coordinator.core.errors import CoordinatorUnavailable
from coordinator.spark.log_following import LogPrinter, print_line


def test_lines_are_printed_until_there_are_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter(iter(["[worker:0] one", "[worker:1] two"]))
    printer.start()
    assert printer.finish(30.0)
    assert capsys.readouterr().err == "[worker:0] one\n[worker:1] two\n"


def test_a_standard_error_that_nobody_reads_holds_up_nobody() -> None:
    reads = threading.Event()
    printer = LogPrinter(iter(["one"]), lambda line: reads.wait(60))
    printer.start()
    assert not printer.finish(0.05)
    reads.set()
    assert printer.finish(30.0)


def test_an_end_before_the_runs_is_said() -> None:
    def lines() -> Iterator[str]:
        yield "one"
        raise CoordinatorUnavailable("it does not know the run any more")

    said: list[str] = []
    printer = LogPrinter(lines(), said.append)
    printer.start()
    assert printer.finish(30.0)
    assert said[0] == "one"
    assert said[1].startswith("[tflease] members' logs are not printed any more: it does not know")


def test_one_that_was_never_started_is_finished_at_once() -> None:
    assert LogPrinter(iter(["one"])).finish(30.0)


def test_a_process_without_standard_error_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    print_line("one")
