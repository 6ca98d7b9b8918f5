"""A log that takes no more than so much of the disk, and loses no offset (E3, E4)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.core.log_values import LogChunk
from executor_agent import bounded_log, logs
from executor_agent.bounded_log import (
    DEFAULT_BYTES,
    LEAST_BYTES,
    BoundedLog,
    LogTrimmer,
    beside,
    bytes_kept,
)
from executor_agent.logs import LogCopier

LINE = b"%09d\n"
LIMIT = 200_000


class Printer:
    """A member: it has its log open with O_APPEND all the while."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        self.path = path
        self.printed = 0

    def print(self, lines: int) -> None:
        first = self.printed // 10
        data = b"".join(LINE % number for number in range(first, first + lines))
        self.printed += os.write(self.fd, data)


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Printer]:
    printer = Printer(tmp_path / "member.log")
    yield printer
    os.close(printer.fd)


@pytest.fixture(params=["holes", "no holes"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if request.param == "no holes":
        monkeypatch.setattr(bounded_log, "punch_hole", refuse)
    return str(request.param)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def on_disk(path: Path) -> int:
    return sum(each.stat().st_blocks * 512 for each in (path, beside(path)) if each.exists())


def test_what_is_kept_is_bounded_and_every_byte_keeps_its_offset(
    member: Printer, kind: str
) -> None:
    log = BoundedLog(member.path, LIMIT)
    for _ in range(50):
        member.print(10_000)
        log.trim()
        assert on_disk(member.path) <= 1.7 * LIMIT + 2 * 65536
        assert log.size() == member.printed
        start, data, size = log.read(member.printed - 1000, 4096)
        assert (start, size) == (member.printed - 1000, member.printed)
        assert data.splitlines() == [LINE[:-1] % (start // 10 + each) for each in range(100)]


def test_who_reads_what_is_gone_is_told_where_it_goes_on(member: Printer, kind: str) -> None:
    log = BoundedLog(member.path, LIMIT)
    member.print(100_000)
    freed = log.trim()
    assert freed > 0
    chunk = logs.read(log, 0, 100)
    assert chunk.offset == freed
    assert chunk.size == 1_000_000
    assert chunk.data.splitlines()[1] == LINE[:-1] % (freed // 10 + 1)


def test_after_the_bounding_everything_up_to_the_end_is_read(member: Printer, kind: str) -> None:
    """Across the border of what was put beside, too."""
    log = BoundedLog(member.path, LIMIT)
    member.print(60_000)
    position = log.trim()
    member.print(5_000)
    read = b""
    while data := log.read(position + len(read), 7777)[1]:
        assert log.read(position + len(read), 7777)[0] == position + len(read)
        read += data
    assert read[-10:] == LINE % 64_999
    assert len(read) == member.printed - position


def test_the_tail_of_a_report_is_whole(member: Printer, kind: str) -> None:
    log = BoundedLog(member.path, LIMIT)
    member.print(100_000)
    log.trim()
    member.print(10)
    lines = logs.tail(member.path).splitlines()
    assert len(lines) == 819
    assert lines == [f"{number:09}" for number in range(100_010 - 819, 100_010)]
    chunk = logs.read(log, None, 95)
    assert chunk == LogChunk(1_000_010, LINE * 9 % tuple(range(100_001, 100_010)), 1_000_100)


def test_the_copy_for_the_executors_stderr_says_what_it_has_missed(
    member: Printer, kind: str
) -> None:
    log = BoundedLog(member.path, LIMIT)
    member.print(100_000)
    freed = log.trim()
    with open(member.path.with_name("stderr"), "w+b") as target:
        copier = LogCopier(log, "[worker:0] ", target=target.fileno())
        copier.start()
        copier.finish(20.0)
        target.seek(0)
        first, _, *others = target.read().splitlines()
    assert first.startswith(b"[worker:0] (%d bytes of the log were not copied" % freed)
    assert others[-1] == b"[worker:0] 000099999"


def test_below_the_limit_nothing_is_touched(member: Printer) -> None:
    log = BoundedLog(member.path, LIMIT)
    member.print(LIMIT // 10)
    assert log.trim() == 0
    assert log.read(0, 10) == (0, LINE % 0, LIMIT)


def test_without_a_limit_all_is_kept(member: Printer) -> None:
    member.print(50_000)
    log = BoundedLog(member.path)
    assert log.trim() == 0
    assert on_disk(member.path) >= 500_000


def test_a_log_that_its_own_program_empties_is_read_on(member: Printer) -> None:
    log = BoundedLog(member.path, LIMIT)
    member.print(60_000)
    log.trim()
    os.ftruncate(member.fd, 0)
    os.write(member.fd, b"anew\n")
    assert log.read(600_000, 100) == (5, b"", 5)
    assert log.read(0, 100) == (0, b"anew\n", 5)
    assert log.trim() == 0


def test_the_trimmer_goes_on_and_complains_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_log, "_INTERVAL", 0.01)
    complaints: list[str] = []
    path = tmp_path / "member.log"
    trimmer = LogTrimmer(BoundedLog(path, LIMIT), complaints.append)
    trimmer.start()
    eventually(lambda: complaints)
    member = Printer(path)
    member.print(100_000)
    eventually(lambda: on_disk(path) < 2 * LIMIT)
    trimmer.close()
    os.close(member.fd)
    assert len(complaints) == 1
    assert complaints[0].startswith("the member's log cannot be bounded")


def test_how_much_is_kept_is_the_executors_environments_business() -> None:
    assert bytes_kept({}) == DEFAULT_BYTES
    assert bytes_kept({bounded_log.VARIABLE: " 0 "}) == 0
    assert bytes_kept({bounded_log.VARIABLE: "1048576"}) == LEAST_BYTES


@pytest.mark.parametrize("text", ["1", "-5", "256MB", "1e9", "\u0663" * 8])
def test_a_number_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a number of bytes"):
        bytes_kept({bounded_log.VARIABLE: text})
