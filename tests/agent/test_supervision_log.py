"""Where supervision's lines go: to the file as a whole, to stderr only where that cannot wait."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent import supervision_log
from executor_agent.core.story import SUPERVISION_LOG
from executor_agent.supervision_log import SupervisionLog, label_of

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[run/worker:1/1\] agent: (.*)\n")
SAYS = """
import sys
from executor_agent.supervision_log import write_to_stderr
for _ in range(int(sys.argv[1])):
    write_to_stderr(b"x" * 3999 + bytes([10]))
print("said")
"""


def speak(stderr: int, lines: int = 1) -> None:
    """A process that writes to this stderr; it has to come to its end."""
    done = subprocess.run(
        [sys.executable, "-c", SAYS, str(lines)],
        stderr=stderr,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"said\n")


def fill(write_fd: int) -> int:
    """Fill a pipe to the last byte, and leave it blocking."""
    os.set_blocking(write_fd, False)
    written = 0
    for size in (4096, 1):
        try:
            while True:
                written += os.write(write_fd, b"f" * size)
        except BlockingIOError:
            pass
    os.set_blocking(write_fd, True)
    return written


def read_all(read_fd: int) -> bytes:
    os.set_blocking(read_fd, False)
    found = b""
    try:
        while data := os.read(read_fd, 65536):
            found += data
    except BlockingIOError:
        pass
    return found


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


@pytest.fixture
def log(tmp_path: Path) -> SupervisionLog:
    return SupervisionLog(str(tmp_path), "run/worker:1/1", "agent")


def test_a_pipe_that_nobody_reads_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """The executor's JVM is frozen: its stderr is full, and a blocking write would wait for it."""
    read_fd, write_fd = pipe
    filled = fill(write_fd)
    speak(write_fd)
    assert read_all(read_fd) == b"f" * filled


def test_a_pipe_that_runs_full_takes_whole_lines_only(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    speak(write_fd, lines=100)
    lines = read_all(read_fd).splitlines()
    assert 0 < len(lines) < 100
    assert {len(line) for line in lines} == {3999}


def test_who_shares_the_pipe_still_has_it_blocking(pipe: tuple[int, int]) -> None:
    """O_NONBLOCK belongs to the description, and so to everybody who inherited it."""
    _, write_fd = pipe
    speak(write_fd)
    assert fcntl.fcntl(write_fd, fcntl.F_GETFL) & os.O_NONBLOCK == 0


def test_a_pipe_whose_reader_is_gone_is_no_failure() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    speak(write_fd)
    os.close(write_fd)


def test_a_socket_that_nobody_reads_holds_nobody_up() -> None:
    """A service manager's journal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        speak(theirs.fileno(), lines=1000)
        assert theirs.getblocking()
        assert ours.recv(10) == b"x" * 10


def test_a_file_is_written_where_its_writers_stand(tmp_path: Path) -> None:
    with open(tmp_path / "stderr", "w") as file:
        file.write("before\n")
        file.flush()
        speak(file.fileno())
    assert (tmp_path / "stderr").read_bytes() == b"before\n" + b"x" * 3999 + b"\n"


def test_a_pipe_of_another_user_is_written_only_when_it_has_room(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers: stderr was opened by root and cannot be opened again."""
    read_fd, write_fd = pipe

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    inherited = os.dup(2)
    os.dup2(write_fd, 2)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(supervision_log.os, "open", refuse)
            supervision_log.write_to_stderr(b"seen\n")
            assert read_all(read_fd) == b"seen\n"
            filled = fill(write_fd)
            supervision_log.write_to_stderr(b"dropped\n")
    finally:
        os.dup2(inherited, 2)
        os.close(inherited)
    assert read_all(read_fd) == b"f" * filled


def test_lines_are_appended_with_stamp_marker_and_speaker(
    log: SupervisionLog, tmp_path: Path
) -> None:
    (tmp_path / SUPERVISION_LOG).write_text("earlier\n")
    log.say("one")
    log.note("two\nthree")
    assert (tmp_path / SUPERVISION_LOG).read_text() == "earlier\n", "nothing before the flush"
    log.flush()
    log.flush()
    _, *lines = (tmp_path / SUPERVISION_LOG).read_bytes().splitlines(keepends=True)
    found = [LINE.fullmatch(line) for line in lines]
    assert [each and each[1] for each in found] == [b"one", b"two", b"three"]


def test_routine_is_for_the_file_alone(
    log: SupervisionLog, capfd: pytest.CaptureFixture[str]
) -> None:
    log.note("reserved the slot")
    log.say("lost the coordinator")
    err = capfd.readouterr().err
    assert "lost the coordinator" in err
    assert "reserved" not in err


def test_the_file_is_ours_alone_and_no_link_is_followed(
    log: SupervisionLog, tmp_path: Path
) -> None:
    path, elsewhere = tmp_path / SUPERVISION_LOG, tmp_path / "elsewhere"
    log.say("one")
    log.flush()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    elsewhere.touch()
    path.symlink_to(elsewhere)
    log.say("two")
    log.flush()
    assert elsewhere.read_text() == ""


def test_a_directory_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    log = SupervisionLog(str(tmp_path / "gone"), "run/worker:1/1", "agent")
    log.say("one")
    log.flush()
    assert not (tmp_path / "gone").exists()


def test_a_process_has_a_name_and_a_state() -> None:
    process = subprocess.Popen(["sleep", "600"])
    assert re.fullmatch(rf"{process.pid} \S+ \(state [SRD]\)", label_of(process.pid))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert "state" not in label_of(process.pid)
    process.wait()
    assert label_of(process.pid) == f"{process.pid} (gone)"
