"""What a process is recognised by: real processes, each with one trace or with almost one."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from executor_agent import traces
from executor_agent.core.supervision import MARKER_VARIABLE
from executor_agent.processes import ProcessIdentity, identity_of, is_running
from executor_agent.traces import Trace, marker_of, search
from tests.integration.sentinel_helpers import eventually

Start = Callable[..., ProcessIdentity]


@pytest.fixture
def start() -> Iterator[Start]:
    """As subprocess.Popen; returns once the program runs, so that its traces are its own."""
    with ExitStack() as cleanup:

        def begin(**how: Any) -> ProcessIdentity:
            how = {"stdin": subprocess.DEVNULL, **how}
            process = subprocess.Popen(["sleep", "600"], **how)
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            identity = identity_of(process.pid)
            assert identity is not None
            # Popen returns amid the exec, when there is no environment to be seen for an instant.
            environment = Path(f"/proc/{process.pid}/environ")
            eventually(lambda: environment.read_bytes() != b"", "the program to run")
            return identity

        yield begin


@pytest.fixture
def marker() -> str:
    return f"{uuid.uuid4().hex}/worker:1/a"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "member.log"
    path.touch()
    return path


def marked_with(marker: str) -> dict[str, str]:
    return {**os.environ, MARKER_VARIABLE: marker}


def opened(path: Path, mode: str, start: Start) -> ProcessIdentity:
    file: IO[bytes]
    with open(path, mode) as file:
        return start(stdout=file)


def found(*wanted: Trace) -> list[tuple[ProcessIdentity, str, str]]:
    return [(each.identity, each.marker, each.evidence) for each in search(wanted)]


def test_by_the_marker_in_the_environment(start: Start, marker: str) -> None:
    who = start(env=marked_with(marker))
    assert found(Trace(marker, log="")) == [(who, marker, "marker")]
    assert marker_of(who.pid) == marker
    assert who in [each.identity for each in traces.marked()]


@pytest.mark.parametrize("other", ["{}0", "0{}", "{}/", " {}"])
def test_a_marker_has_to_be_the_same_to_the_last_character(
    start: Start, marker: str, other: str
) -> None:
    """R10, O7."""
    start(env=marked_with(other.format(marker)))
    assert found(Trace(marker, log="")) == []


def test_a_variable_whose_name_only_ends_like_ours_is_none(start: Start, marker: str) -> None:
    who = start(env={**os.environ, f"X{MARKER_VARIABLE}": marker, "Y": f"{MARKER_VARIABLE}="})
    assert marker_of(who.pid) is None
    assert found(Trace(marker, log="")) == []


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_by_the_log_open_for_writing(start: Start, marker: str, log: Path, mode: str) -> None:
    who = opened(log, mode, start)
    assert found(Trace(marker, str(log))) == [(who, marker, "writes to its log")]


def test_who_only_reads_the_log_is_no_descendant(start: Start, marker: str, log: Path) -> None:
    opened(log, "rb", start)
    assert found(Trace(marker, str(log))) == []


def test_a_log_that_was_removed_still_tells(start: Start, marker: str, log: Path) -> None:
    """By a cleaner of temporary files."""
    who = opened(log, "ab", start)
    log.unlink()
    assert found(Trace(marker, str(log))) == [(who, marker, "writes to its log")]


def test_a_log_below_a_symbolic_link_is_the_same_file(
    start: Start, marker: str, log: Path, tmp_path: Path
) -> None:
    """The kernel names it by its real path."""
    (tmp_path / "link").symlink_to(tmp_path)
    who = opened(log, "ab", start)
    wanted = Trace(marker, str(tmp_path / "link" / log.name))
    assert found(wanted) == [(who, marker, "writes to its log")]


def test_by_the_reading_end_of_the_dead_mans_pipe_and_not_by_the_other(
    start: Start, marker: str
) -> None:
    """The writing end is the sentinel's and the task's."""
    read_fd, write_fd = os.pipe()
    try:
        wanted = Trace(marker, log="", pipe=os.fstat(read_fd).st_ino)
        who = start(stdin=read_fd)
        start(stdout=write_fd)
        assert found(wanted) == [(who, marker, "holds its pipe")]
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_who_was_there_before_the_member_is_none_of_its(
    start: Start, marker: str, log: Path
) -> None:
    """O7: a collector of logs, say. The number of a pipe can come again, too."""
    read_fd, write_fd = os.pipe()
    try:
        with open(log, "ab") as file:
            who = start(stdin=read_fd, stdout=file)
        pipe = os.fstat(read_fd).st_ino
        assert found(Trace(marker, str(log), pipe, since=who.create_time + 0.01)) == []
        assert len(found(Trace(marker, str(log), pipe, since=who.create_time))) == 1
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_who_carries_the_marker_of_another_is_the_others(
    start: Start, marker: str, log: Path
) -> None:
    """It may write to this log all the same: a pipeline of two members."""
    with open(log, "ab") as file:
        start(env=marked_with(f"{marker}0"), stdout=file)
    assert found(Trace(marker, str(log))) == []


def test_by_having_been_written_down_and_only_exactly_that_one(start: Start, marker: str) -> None:
    who, another = start(), start()
    stale = ProcessIdentity(another.pid, another.create_time - 1)
    assert found(Trace(marker, log="", known=frozenset({who, stale}))) == [(who, marker, "claimed")]


def test_each_is_found_as_whose_it_is(start: Start, marker: str, tmp_path: Path) -> None:
    """One search for many members."""
    expected, wanted = [], []
    for number in range(3):
        log = tmp_path / f"{number}.log"
        with open(log, "wb") as file:
            who = start(stdout=file)
        wanted.append(Trace(f"{marker}{number}", str(log), since=who.create_time))
        expected.append((who, f"{marker}{number}", "writes to its log"))
    assert sorted(found(*wanted), key=str) == sorted(expected, key=str)


def test_the_dead_are_not_found(marker: str) -> None:
    """A zombie holds nothing, and its parent may take its time."""
    process = subprocess.Popen(["true"], env=marked_with(marker))
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        identity = identity_of(process.pid)
        assert identity is not None
        assert not is_running(identity)
        assert found(Trace(marker, log="", known=frozenset({identity}))) == []
    finally:
        process.wait()


def test_who_looks_never_finds_itself(marker: str, log: Path) -> None:
    """An agent sweeps, and carries the marker."""
    me = identity_of(os.getpid())
    assert me is not None
    with open(log, "ab"):
        assert found(Trace(marker, str(log), known=frozenset({me}))) == []


def test_nobody_is_asked_for_nothing() -> None:
    assert search([]) == []
