"""SIGKILL at any instant: what was promised is there, and nothing out of its order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coordinator import journal_report
from coordinator.journal import EventQuery, Journal, Retention

DEADLINE = 30.0
ROUNDS = 20
MEMBERS = 5

# Batch n sets every member to n, and tells event n. Each is printed when it is promised; several
# are outstanding, so that they are committed together.
WRITE = """
import sys
from collections import deque
from pathlib import Path
from coordinator.journal import EventRecord, Journal, Retention
journal = Journal.open(Path(sys.argv[1]), retention=Retention(days=1e6))
number = journal.next_event_id
outstanding = deque()
print("begin", number, flush=True)
while True:
    put = {("member", str(n)): {"number": number, "text": "x" * (number % 700)} for n in range(5)}
    put["run", str(number % 50)] = {"number": number}
    removed = [("run", str((number + 25) % 50))]
    event = EventRecord(number, 0.0, "", "", "test", f"batch {number}")
    outstanding.append((number, journal.write(put, removed, [event])))
    number += 1
    if len(outstanding) >= 20:
        done, future = outstanding.popleft()
        future.result(30)
        print(done, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_prefix_with_all_that_was_promised(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    choose = random.Random(6)
    for round_ in range(ROUNDS):
        promised = kill_after(path, lines=choose.randrange(1, 200), late=choose.random() / 100)
        report = journal_report.check(path)
        assert report.is_sound, f"round {round_}: {report.problems}"
        assert report.holder == "", "the kernel frees the lock of a killed process"
        journal = Journal.open(path, retention=Retention(days=1e6))
        records = journal.load()
        told = [event.id for event in journal.events(EventQuery(limit=10**9))]
        journal.close()
        last = told[-1]
        assert last >= promised
        assert told == list(range(1, last + 1)), f"round {round_}: a prefix, without a gap"
        assert {records["member", str(n)]["number"] for n in range(MEMBERS)} == {last}
        assert records["run", str(last % 50)] == {"number": last}
        assert ("run", str((last + 25) % 50)) not in records


@pytest.mark.slow
def test_looking_at_it_is_no_hindrance_for_its_daemon(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for _ in range(20):
                assert process.stdout.readline(), "the writer has failed"
                report = journal_report.check(path)
                assert report.is_sound, report.problems
                assert report.holder == f"process {process.pid}"
                header, *rest = journal_report.export(path)
                events = [line["id"] for line in rest if line["type"] == "event"]
                numbers = {x["value"]["number"] for x in rest if x.get("kind") == "member"}
                assert header["type"] == "journal"
                assert numbers <= {events[-1]} if events else not rest, "one picture"
        finally:
            process.kill()


def kill_after(path: Path, *, lines: int, late: float) -> int:
    """Killed so many seconds after it has printed so many lines; the last number it printed."""
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("begin")
            seen = [process.stdout.readline() for _ in range(lines)]
            killer = threading.Timer(late, os.kill, (process.pid, signal.SIGKILL))
            killer.start()
            seen += process.stdout.readlines()  # until the pipe closes with the process
            killer.join(DEADLINE)
        finally:
            process.kill()
    whole = [line for line in seen if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    return int(whole[-1])


@pytest.mark.slow
def test_a_creation_that_is_killed_can_be_repeated(tmp_path: Path) -> None:
    """Killed at one system call after the other, as far as Python's own steps go."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from coordinator.journal import Journal\n"
        "left = int(sys.argv[2])\n"
        "def trace(event, arguments):\n"
        "    global left\n"
        "    if event in ('open', 'os.link', 'os.remove', 'os.rename', 'sqlite3.connect',\n"
        "                 'sqlite3.connect/handle', 'os.mkdir'):\n"
        "        left -= 1\n"
        "        if left == 0:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(trace)\n"
        "Journal.open(Path(sys.argv[1])).close()\n"
    )
    for step in range(1, 100):
        path = tmp_path / str(step) / "journal.sqlite"
        command = [sys.executable, "-c", code, str(path), str(step)]
        died = subprocess.run(command, check=False).returncode
        journal = Journal.open(path)
        assert journal.load() == {}
        journal.close()
        assert not list(path.parent.glob("*.new*"))
        if died == 0:
            break
        assert died == -signal.SIGKILL
    assert step > 5, "it was killed at no step"
