"""The member's log on the executor's stderr, and its tail in reports (E3, E4)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.core.log_values import LogChunk
from executor_agent.logs import LogCopier, read, tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "member.log"
    path.touch()
    return path


class Pipe:
    """Stands for the pipe to the executor's JVM."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def read(self) -> bytes:
        """What has come until nothing comes any more."""
        os.set_blocking(self.read_end, False)
        chunks = []
        while True:
            try:
                chunk = os.read(self.read_end, 65536)
            except BlockingIOError:
                chunk = b""
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    def close(self) -> None:
        for end in (self.read_end, self.write_end):
            if end >= 0:
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def copied(log: Path, pipe: Pipe) -> list[bytes]:
    copier = LogCopier(log, "[worker:0] ", target=pipe.write_end)
    copier.start()
    copier.finish(10.0)
    return pipe.read().splitlines()


def test_every_line_is_copied_with_the_members_name(log: Path, pipe: Pipe) -> None:
    """E3: several members share one executor's stderr."""
    log.write_text("one\ntwo\n")
    assert copied(log, pipe) == [b"[worker:0] one", b"[worker:0] two"]


def test_a_last_line_without_an_end_is_copied_too(log: Path, pipe: Pipe) -> None:
    log.write_text("one\nSegmentation fa")
    assert copied(log, pipe) == [b"[worker:0] one", b"[worker:0] Segmentation fa"]


def test_lines_that_come_in_pieces_stay_whole(log: Path, pipe: Pipe) -> None:
    copier = LogCopier(log, "[ps:0] ", target=pipe.write_end)
    copier.start()
    with log.open("a") as file:
        for piece in ("first ha", "lf\nsec", "ond\n"):
            file.write(piece)
            file.flush()
    copier.finish(10.0)
    assert pipe.read().splitlines() == [b"[ps:0] first half", b"[ps:0] second"]


def test_a_line_that_never_ends_is_copied_in_pieces_and_not_piled_up(log: Path, pipe: Pipe) -> None:
    """A progress bar of carriage returns, or a dump: megabytes without a newline."""
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    log.write_bytes(b"x" * 600_000)
    lines = copied(log, pipe)
    assert len(lines) > 1
    assert b"".join(line.removeprefix(b"[worker:0] ") for line in lines) == b"x" * 600_000


def test_bytes_that_are_no_text_are_passed_on(log: Path, pipe: Pipe) -> None:
    log.write_bytes(b"\xff\xfe\0\n")
    assert copied(log, pipe) == [b"[worker:0] \xff\xfe\0"]


def test_a_reader_that_has_gone_harms_nobody(log: Path, pipe: Pipe) -> None:
    """E4."""
    os.close(pipe.read_end)
    pipe.read_end = -1
    log.write_text("one\n" * 1000)
    copier = LogCopier(log, "", target=pipe.write_end)
    copier.start()
    copier.finish(10.0)


def test_a_reader_that_does_not_read_is_not_waited_for(log: Path, pipe: Pipe) -> None:
    """E4: an executor's JVM that has stopped must not hold up the agent."""
    log.write_bytes(b"line\n" * 100_000)
    copier = LogCopier(log, "[worker:0] ", target=pipe.write_end)
    copier.start()
    copier.finish(0.05)  # returns, though nobody has read
    os.set_blocking(pipe.write_end, False)  # ends the thread, which would outlive the test
    pipe.read()
    copier.finish(10.0)


def test_a_log_that_is_not_there_is_no_mistake(tmp_path: Path, pipe: Pipe) -> None:
    assert copied(tmp_path / "none", pipe) == []
    assert tail(tmp_path / "none") == ""


def test_a_short_log_is_its_own_tail(log: Path) -> None:
    log.write_text("one\ntwo\n\n")
    assert tail(log) == "one\ntwo"


def test_the_tail_of_a_long_log_begins_with_a_whole_line(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    found = tail(log, 100).splitlines()
    assert found[-1] == "line 999"
    assert all(line.startswith("line ") and len(line) == 8 for line in found)


def test_the_tail_of_one_endless_line_is_its_end(log: Path) -> None:
    """TensorFlow writes errors of megabytes in one line: nothing would be shown of them."""
    log.write_text("x" * 10_000 + " the reason\n")
    found = tail(log, 100)
    assert found.endswith("the reason")
    assert 90 <= len(found) <= 100


def test_half_a_character_at_the_start_of_the_tail_is_no_mistake(log: Path) -> None:
    log.write_bytes("\N{SNOWMAN}".encode() * 100)
    assert tail(log, 100).endswith("\N{SNOWMAN}")


def test_a_piece_of_a_log_is_read_from_where_it_was_asked_for(log: Path) -> None:
    """E3"""
    log.write_bytes(b"one\ntwo\nthree\n")
    assert read(log, 4, 3) == LogChunk(4, b"two", 14)
    assert read(log, 12, 100) == LogChunk(12, b"e\n", 14)
    assert read(log, 100, 10) == LogChunk(14, b"", 14), "it is not that long, yet"


def test_the_end_of_a_log_begins_with_a_line(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthree\n")
    assert read(log, None, 100) == LogChunk(0, b"one\ntwo\nthree\n", 14)
    assert read(log, None, 8) == LogChunk(8, b"three\n", 14)
    assert read(log, None, 3) == LogChunk(11, b"ee\n", 14), "or with as much as was asked for"


def test_a_line_that_is_longer_than_what_was_asked_for_is_cut(log: Path) -> None:
    log.write_bytes(b"a progress bar that never ends its line")
    assert read(log, None, 9) == LogChunk(30, b" its line", 39)
