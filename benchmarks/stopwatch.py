"""Kills one process and says when others are gone, as the kernel sees it.

A program of its own, with the standard library only: neither the threads of a Spark driver nor the
garbage collection of gRPC may stand between an event and its time. It uses nothing of the
product's code, which is what it measures.

    python -m benchmarks.stopwatch < question.json > answer.json

Processes are (pid, start time in clock ticks since boot), so that a number that was given to
somebody else is noticed. "Gone" is the moment a pidfd, opened beforehand, becomes readable: no
thread runs any more, and the memory is freed.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_MARKER = "TFLEASE_MEMBER"


@dataclass(frozen=True, slots=True)
class Process:
    """Exactly this process, not whoever has its number later."""

    pid: int
    started: int

    @classmethod
    def now(cls, pid: int) -> Process:
        """Who has this number now. Raises ProcessLookupError."""
        return cls(pid, int(_stat(pid)[19]))


@dataclass(frozen=True, slots=True)
class Question:
    """Kill ``victim``; when is each of ``watched`` gone? ``marker`` finds what was forked
    meanwhile, except ``spared`` (which is no part of what is measured)."""

    victim: Process
    watched: tuple[Process, ...]
    marker: str
    spared: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds from just before the kill. ``victim_gone``: the victim itself. ``gone``: the
    watched, by pid. ``late``: how many were found only by the search afterwards. ``left``: what
    still ran after the timeout."""

    victim_gone: float
    gone: dict[int, float]
    late: int
    left: tuple[str, ...]

    @property
    def all_gone(self) -> float:
        """When the last of the watched was gone."""
        return max(self.gone.values())


def ask(question: Question) -> Answer:
    """Runs the stopwatch in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stopwatch"],
        input=json.dumps(asdict(question)),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=question.timeout + 30,
    )
    found = json.loads(done.stdout)
    gone = {int(pid): float(seconds) for pid, seconds in found["gone"].items()}
    return Answer(found["victim_gone"], gone, int(found["late"]), tuple(found["left"]))


def kill_and_watch(question: Question) -> Answer:
    """The measurement itself. Raises ProcessLookupError when somebody is gone already."""
    poller = select.epoll()
    open_fds: dict[int, Process] = {}

    def watch(process: Process) -> None:
        fd = _open(process)
        open_fds[fd] = process
        poller.register(fd, select.EPOLLIN)

    victim = _open(question.victim)
    for process in {question.victim: None, **dict.fromkeys(question.watched)}:
        watch(process)
    known = {question.victim, *question.watched}
    gone: dict[int, float] = {}
    late = 0
    began_at = time.monotonic()
    signal.pidfd_send_signal(victim, signal.SIGKILL)
    while open_fds:
        patience = question.timeout - (time.monotonic() - began_at)
        if patience <= 0:
            break
        for fd, _ in poller.poll(patience):
            gone[open_fds.pop(fd).pid] = time.monotonic() - began_at
            poller.unregister(fd)
        if not open_fds:  # the search is not timed: the last moment is known already
            for process in marked(question.marker, without=question.spared):
                if process not in known:
                    late += 1
                    known.add(process)
                    with suppress(ProcessLookupError):
                        watch(process)
    left = [process.pid for process in open_fds.values()]
    victim_gone = gone.get(question.victim.pid, math.inf)
    if question.victim not in question.watched:
        gone.pop(question.victim.pid, None)
    return Answer(victim_gone, gone, late, tuple(f"{pid} {command(pid)}" for pid in left))


def marked(marker: str, without: int = 0) -> list[Process]:
    """Everything alive on this machine that was started with this marker; with one that begins
    so where it ends in a slash (``RUN/``: all members of a run)."""
    wanted = f"{_MARKER}={marker}".encode()
    fits = bytes.startswith if marker.endswith("/") else bytes.__eq__
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == without:
            continue
        with suppress(OSError):  # it ends while we look, or is none of ours
            variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if any(fits(variable, wanted) for variable in variables):
                stat = _stat(int(name))
                if stat[0] not in ("Z", "X"):
                    found.append(Process(int(name), int(stat[19])))
    return found


def marker_of(pid: int) -> str:
    """The member that this process belongs to. Raises LookupError."""
    for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = variable.decode(errors="replace").partition("=")
        if name == _MARKER:
            return value
    raise LookupError(f"process {pid} carries no marker")


def _open(process: Process) -> int:
    fd = os.pidfd_open(process.pid)
    if Process.now(process.pid) != process:
        os.close(fd)
        raise ProcessLookupError(f"{process} is gone")
    return fd


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    # After the command's name, which may itself hold spaces and parentheses.
    return text[text.rindex(")") + 2 :].split()


def command(pid: int) -> str:
    """How it was started; for people, and to tell who is who."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    return b" ".join(words).decode(errors="replace").strip()


def _processes(pairs: Iterable[dict[str, int]]) -> tuple[Process, ...]:
    return tuple(Process(**pair) for pair in pairs)


def main() -> int:
    """Question on standard input, answer on standard output."""
    asked = json.load(sys.stdin)
    question = Question(
        victim=Process(**asked["victim"]),
        watched=_processes(asked["watched"]),
        marker=asked["marker"],
        spared=asked["spared"],
        timeout=asked["timeout"],
    )
    print(json.dumps(asdict(kill_and_watch(question))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
