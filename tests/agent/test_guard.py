"""The guard of the driver's side processes: whoever is killed, nothing of the command is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from executor_agent.guard import PARENT_GONE, Guarded

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

# A tree as unruly as it gets: a plain child, one in a session of its own, a daemon's double fork.
TREE = """
import json, os, signal, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
report, write = os.pipe()
def fork(steps):
    if os.fork() == 0:
        for step in steps:
            if step == "setsid":
                os.setsid()
            elif step == "fork" and os.fork():
                os._exit(0)
        os.write(write, f"{os.getpid()}\\n".encode())
        time.sleep(600)
        os._exit(0)
lines = b""
for steps in ((), ("setsid",), ("setsid", "fork")):
    fork(steps)
    lines += os.read(report, 100)  # one after the other, so that they are told in this order
pids = [os.getpid(), *map(int, lines.split())]
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(pids, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
if sys.argv[2] == "leaves":
    sys.exit(7)
time.sleep(600)
"""

# A driver: starts the guard from a thread that ends at once, holds the lifeline, and waits.
DRIVER = """
import os, subprocess, sys, threading, time
started = []
def start():
    argv = [sys.executable, *GUARD, "--parent", str(os.getpid())]
    argv += ["--scratch", sys.argv[1], "--", *sys.argv[2:]]
    started.append(subprocess.Popen(argv, stdin=subprocess.PIPE))
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(started[0].pid, flush=True)
time.sleep(600)
"""

GUARD = ("-m", "executor_agent.guard")
WITHOUT_PIDFDS = """
import os, sys
def refuse(pid, flags=0):
    raise PermissionError("seccomp")
os.pidfd_open = refuse
from executor_agent.guard import main
sys.exit(main(sys.argv[1:]))
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a guard of ours over a command; ends it after the test, whatever the test found."""
    started: list[subprocess.Popen[bytes]] = []

    def start_guard(*command: str, grace: str = "0", scratch: str = "") -> subprocess.Popen[bytes]:
        argv = ["--parent", str(os.getpid()), "--grace", grace, "--scratch", scratch]
        argv += ["--", *command]
        process = subprocess.Popen(
            [sys.executable, "-m", "executor_agent.guard", *argv], cwd=ROOT, stdin=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start_guard
    for process in started:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def tree_of(path: Path, manner: str = "waits") -> tuple[str, ...]:
    return sys.executable, "-c", TREE, str(path), manner


def driver_of(code: str, folder: Path, manner: str, guard: tuple[str, ...] = GUARD) -> list[str]:
    """Its command line. Its tree writes to "pids"; its scratch directory is "scratch"."""
    scratch = folder / "scratch"
    scratch.mkdir()
    (scratch / "file").touch()
    code = f"GUARD = {guard!r}\n{code}"
    return [sys.executable, "-c", code, str(scratch), *tree_of(folder / "pids", manner)]


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def processes_in(path: Path) -> list[psutil.Process]:
    eventually(path.exists, "the tree stands")
    return [psutil.Process(pid) for pid in json.loads(path.read_text())]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    # Whoever was orphaned before may stay a zombie where nobody buries it.
    alive = [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    assert not alive


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--parent", "1"],
        ["--parent", "1", "--"],
        ["--grace", "1", "--", "true"],
        ["--parent", "1", "--odd", "1", "--", "true"],
        ["--parent", "one", "--", "true"],
        ["--parent", "1", "--grace", "long", "--", "true"],
        ["true"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError):
        Guarded.parse(argv)


def test_a_command_keeps_its_own_options() -> None:
    asked = Guarded.parse(["--parent", "5", "--grace", "1.5", "--", "a", "--", "--grace", "2"])
    assert asked == Guarded(("a", "--", "--grace", "2"), 5, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("code, told", [("raise SystemExit(3)", 3), ("import os; os.abort()", 134)])
def test_the_guard_ends_as_its_command_does(start: Start, code: str, told: int) -> None:
    assert start(sys.executable, "-c", code).wait(DEADLINE) == told


@pytest.mark.slow
def test_a_command_that_cannot_be_started_says_so(start: Start) -> None:
    assert start("/no/such/program").wait(DEADLINE) == 127


@pytest.mark.slow
def test_what_the_command_leaves_behind_is_killed(start: Start, tmp_path: Path) -> None:
    guard = start(*tree_of(tmp_path / "pids", "leaves"))
    assert guard.wait(DEADLINE) == 7
    # Proven: the guard ends only when the kernel says that it has no child left.
    assert not [pid for pid in json.loads((tmp_path / "pids").read_text()) if _lives(pid)]


@pytest.mark.slow
def test_the_whole_tree_is_gone_when_the_lifeline_closes(start: Start, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    guard = start(*tree_of(tmp_path / "pids", "stubborn"), grace="600", scratch=str(scratch))
    tree = processes_in(tmp_path / "pids")
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(DEADLINE) == 128 + signal.SIGKILL
    assert not [each for each in tree if _lives(each.pid)]
    assert not scratch.exists()


@pytest.mark.slow
def test_sigterm_asks_first(start: Start, tmp_path: Path) -> None:
    guard = start(*tree_of(tmp_path / "pids"), grace="600")
    tree = processes_in(tmp_path / "pids")
    guard.terminate()
    assert guard.wait(DEADLINE) == 128 + signal.SIGTERM
    assert not [each for each in tree if _lives(each.pid)]


@pytest.mark.slow
def test_sigterm_kills_who_does_not_leave_within_the_grace(start: Start, tmp_path: Path) -> None:
    guard = start(*tree_of(tmp_path / "pids", "stubborn"), grace="0.1")
    tree = processes_in(tmp_path / "pids")
    guard.terminate()
    assert guard.wait(DEADLINE) == 128 + signal.SIGKILL
    assert not [each for each in tree if _lives(each.pid)]


@pytest.mark.slow
def test_signals_that_mean_nothing_change_nothing(start: Start, tmp_path: Path) -> None:
    guard = start(*tree_of(tmp_path / "pids", "stubborn"), grace="600")
    tree = processes_in(tmp_path / "pids")
    for number in (
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
        *(signal.SIGALRM, signal.SIGIO, signal.SIGPROF, signal.SIGRTMIN, signal.SIGRTMAX),
    ):
        guard.send_signal(number)
    assert guard.stdin is not None
    guard.stdin.close()  # it is there to see this
    assert guard.wait(DEADLINE) == 128 + signal.SIGKILL
    assert not [each for each in tree if _lives(each.pid)]


@pytest.mark.slow
def test_a_command_has_the_signals_that_it_would_have_without_a_guard(
    start: Start, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    code = (
        "import pathlib, signal, sys\n"
        "ours = (signal.SIGPIPE, signal.SIGXFSZ)  # Python itself ignores these\n"
        "lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "(mask,) = (int(line.split()[1], 16) for line in lines if line.startswith('SigIgn'))\n"
        "found = [n for n in signal.valid_signals() if mask >> n - 1 & 1 and n not in ours]\n"
        "pathlib.Path(sys.argv[1]).write_text(repr(found))\n"
    )
    assert start(sys.executable, "-c", code, str(told)).wait(DEADLINE) == 0
    assert told.read_text() == "[]"


@pytest.mark.slow
def test_the_group_dies_with_a_guard_that_is_killed(start: Start, tmp_path: Path) -> None:
    """What left the command's session, and only that, outlives it: nobody is there to see it."""
    guard = start(*tree_of(tmp_path / "pids", "stubborn"))
    command, plain, *hidden = processes_in(tmp_path / "pids")
    guard.kill()
    guard.wait(DEADLINE)
    try:
        assert_gone([command, plain])
    finally:
        for each in hidden:
            each.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_whole_tree_dies_with_the_driver(tmp_path: Path, number: signal.Signals) -> None:
    """O1. The thread that started the guard has ended long before (O8)."""
    driver = subprocess.Popen(
        driver_of(DRIVER, tmp_path, "stubborn"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert driver.stdout is not None
    with driver.stdout:
        guard = psutil.Process(int(driver.stdout.readline()))
        tree = processes_in(tmp_path / "pids")
        assert guard.is_running()
        driver.send_signal(number)
        driver.wait(DEADLINE)
        assert_gone([guard, *tree])
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
@pytest.mark.parametrize("guard", [GUARD, ("-c", WITHOUT_PIDFDS)], ids=["pidfd", "polling"])
def test_a_fork_that_holds_the_lifeline_open_saves_nobody(
    tmp_path: Path, guard: tuple[str, ...]
) -> None:
    """The lifeline's end never comes; the driver's own end does (O8)."""
    holder = DRIVER.replace("time.sleep(600)", "os.fork() or time.sleep(600)\ntime.sleep(600)")
    driver = subprocess.Popen(
        driver_of(holder, tmp_path, "waits", guard),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert driver.stdout is not None
    with driver.stdout:
        guarding = psutil.Process(int(driver.stdout.readline()))
        tree = processes_in(tmp_path / "pids")
        eventually(lambda: len(psutil.Process(driver.pid).children()) == 2, "the fork is there")
        forked = [each for each in psutil.Process(driver.pid).children() if each != guarding]
        driver.kill()
        driver.wait(DEADLINE)
        try:
            assert_gone([guarding, *tree])
        finally:
            for each in forked:
                each.kill()


@pytest.mark.slow
def test_nothing_is_started_for_a_parent_that_is_not_ours(tmp_path: Path) -> None:
    """The driver died while the guard was starting."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    argv = [sys.executable, "-m", "executor_agent.guard", "--parent"]
    for pid in (gone.pid, os.getppid()):
        done = subprocess.run(
            [*argv, str(pid), "--", "touch", str(tmp_path / "started")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            check=False,
        )
        assert done.returncode == PARENT_GONE
    assert not (tmp_path / "started").exists()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
