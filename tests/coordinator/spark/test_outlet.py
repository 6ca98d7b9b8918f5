"""E4: a standard error that nobody reads keeps nobody waiting, and loses no line once it is."""

from __future__ import annotations

import io
import os
import socket
import threading
import tty
from collections.abc import Callable, Iterator

import pytest

from coordinator.core.model import Roles, RunId, RunPhase, RunSpec, RunView
from coordinator.spark.log_following import LogPrinter
from coordinator.spark.outlet import Outlet
from coordinator.spark.progress import ProgressLine

RUNNING = RunView(RunId("run"), RunSpec(Roles(worker=1)), RunPhase.RUNNING, 1, (), 0.0, 1)
LINES = [f"[worker:0] line {number} {'x' * 500}" for number in range(800)]
"""More than a pipe, a socket or a terminal keeps."""


def pipe() -> tuple[int, int]:
    return os.pipe()


def sockets() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def terminal() -> tuple[int, int]:
    reader, writer = os.openpty()
    tty.setraw(writer)
    return reader, writer


Ends = tuple[int, io.TextIOWrapper]


@pytest.fixture(params=[pipe, sockets, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    open_both: Callable[[], tuple[int, int]] = request.param
    reader, writer = open_both()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    os.close(reader)
    stream.close()


def returns(call: Callable[[], object]) -> bool:
    """In time, whatever it waits for."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20.0)
    return not thread.is_alive()


def read_all(reader: int, until: bytes) -> bytes:
    found = bytearray()
    while until not in found:
        found += os.read(reader, 65536)
    return bytes(found)


@pytest.mark.slow
def test_members_lines_that_nobody_reads_stop_their_printer_and_nobody_else(ends: Ends) -> None:
    """Neither the thread that follows the run, which shows it, nor whoever shuts it down."""
    reader, stream = ends
    line = ProgressLine("mnist", stream)
    printer = LogPrinter(iter(LINES), line.print_line)
    printer.start()
    assert not printer.finish(0.5)
    assert returns(lambda: line.show(RUNNING))
    assert returns(lambda: line.say("stopping"))
    assert returns(line.close)
    text = read_all(reader, LINES[-1].encode()).decode()
    assert printer.finish(20.0)
    assert all(f"{each}\n" in f"{text}\n" for each in LINES)


def test_a_stream_takes_what_it_can_and_the_rest_is_left(ends: Ends) -> None:
    reader, stream = ends
    outlet = Outlet(stream)
    data = "\n".join(LINES).encode()
    rest = outlet.write(data)
    assert 0 < len(rest) < len(data)
    found = b""
    while len(found) < len(data):  # what it has not taken it takes when there is room
        found += os.read(reader, 65536)
        rest = outlet.write(rest)
    assert found == data
    assert rest == b""
    assert outlet.wait(20.0)


def test_a_stream_that_nobody_will_read_any_more_is_an_error() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        os.close(reader)
        outlet = Outlet(stream)
        assert outlet.wait(20.0)
        with pytest.raises(BrokenPipeError):
            outlet.write(b"one")
    with pytest.raises(ValueError, match="closed"):
        outlet.write(b"one")


def test_what_is_no_descriptor_is_written_to_as_it_is() -> None:
    stream = io.StringIO()
    outlet = Outlet(stream)
    assert outlet.write(outlet.encoded("one \N{SNOWMAN}\n")) == b""
    assert stream.getvalue() == "one \N{SNOWMAN}\n"
    assert outlet.wait(0.0)
    assert Outlet(None).write(b"one") == b""
