"""From pieces of a log to lines: none twice, none skipped silently (E4)."""

from __future__ import annotations

import random

from coordinator.core.log_lines import MAX_LINE_BYTES, RECENT_BYTES, LogLines, Notice
from coordinator.core.log_values import LogChunk
from executor_agent.logs import TAIL_BYTES


def piece(offset: int, data: bytes, size: int = 0) -> LogChunk:
    return LogChunk(offset, data, max(size, offset + len(data)))


def notices(found: list[str | Notice]) -> list[str]:
    return [each.text for each in found if isinstance(each, Notice)]


def test_a_line_comes_when_it_is_whole() -> None:
    lines = LogLines()
    assert lines.take(piece(0, b"one\ntw")) == ["one"]
    assert lines.take(piece(6, b"")) == []
    assert lines.take(piece(6, b"o\r\n\n")) == ["two", ""]
    assert lines.position == 10


def test_a_character_that_was_cut_is_whole_again() -> None:
    data = "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\n".encode()
    lines = LogLines()
    assert lines.take(piece(0, data[:3])) + lines.take(piece(3, data[3:])) == [data.decode()[:-1]]


def test_what_is_no_text_is_shown_all_the_same() -> None:
    assert LogLines().take(piece(0, b"\xff\n")) == ["\N{REPLACEMENT CHARACTER}"]


def test_a_line_without_an_end_does_not_pile_up() -> None:
    lines = LogLines()
    data = b"x" * (MAX_LINE_BYTES + 1)
    assert lines.take(piece(0, data)) == [data.decode()]


def test_bytes_that_are_gone_are_counted() -> None:
    lines = LogLines()
    lines.take(piece(0, b"one\nhalf"))
    half, notice, last = lines.take(piece(1_000_008, b"later\n"))
    assert (half, last) == ("half", "later")
    assert isinstance(notice, Notice)
    assert notice.text.startswith("1,000,000 bytes of the log are gone")


def test_a_log_that_was_cut_off_by_somebody_is_read_on() -> None:
    lines = LogLines()
    lines.take(piece(0, b"one\n"))
    assert notices(lines.take(piece(0, b""))) == ["the log has become shorter, and is read on"]
    assert lines.take(piece(0, b"two\n")) == ["two"]


def test_from_its_end_on_nothing_is_missing() -> None:
    lines = LogLines(None)
    assert lines.take(piece(4711, b"last\n")) == ["last"]
    assert lines.position == 4716


def test_the_tail_of_a_report_goes_on_where_reading_stopped() -> None:
    lines = LogLines()
    lines.take(piece(0, b"one\ntwo\nhal"))
    assert lines.end("one\ntwo\nhalf\nlast") == ["half", "last"]


def test_a_tail_that_was_read_already_says_nothing_new() -> None:
    lines = LogLines()
    lines.take(piece(0, b"one\ntwo\n\n\n"))
    assert lines.end("one\ntwo") == []


def test_a_tail_that_does_not_reach_back_is_told_apart() -> None:
    lines = LogLines()
    lines.take(piece(0, b"one\n"))
    found = lines.end("nine\nten")
    assert found[1:] == ["nine", "ten"]
    assert "may be missing" in notices(found)[0]


def test_of_what_was_never_read_only_the_end_is_claimed() -> None:
    found = LogLines().end("nine\nten")
    assert found[1:] == ["nine", "ten"]
    assert "ended before its log was read" in notices(found)[0]
    assert LogLines(None).end("nine\nten") == ["nine", "ten"], "who wanted the end has it"
    assert LogLines().end("") == []


def test_reading_that_began_inside_the_tail_goes_on_there() -> None:
    for seen, new in ((b"two\n", ["three"]), (b"two\nthr", ["three"]), (b"three\n", [])):
        lines = LogLines(None)
        lines.take(piece(4, seen))
        assert lines.end("one\ntwo\nthree") == new
    lines = LogLines(None)
    lines.take(piece(4, b"two\n"))
    assert notices(lines.end("five\nsix"))


def test_wherever_reading_stops_nothing_is_lost_or_doubled() -> None:
    """Lines of all lengths, indented, some of them not text; the tail as an agent cuts it."""
    chance = random.Random(5)
    for _ in range(300):
        written = b"".join(
            b"%d:" % number + b" " * chance.randrange(3) + chance.choice((b"x", b"\xff")) * size
            + b"\n"
            for number, size in enumerate(
                chance.choices((0, 1, 50, 700), k=chance.randrange(1, 60))
            )
        )  # fmt: skip
        stop = chance.randrange(max(1, len(written) - TAIL_BYTES // 2), len(written) + 1)
        lines = LogLines()
        found = lines.take(piece(0, written[:stop]))
        end = written if len(written) <= TAIL_BYTES else written[-TAIL_BYTES:].partition(b"\n")[2]
        found += lines.end(end.strip().decode(errors="replace"))
        texts = [each.rstrip() for each in found if isinstance(each, str)]
        assert not notices(found)
        assert texts == [
            line.rstrip() for line in written.decode(errors="replace").split("\n")[:-1]
        ]
    assert RECENT_BYTES >= 2 * TAIL_BYTES
