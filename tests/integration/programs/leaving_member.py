"""A member's process of which something stays behind; what, stands in its payload (fd 5).

children: kinds of descendants, each in a session of its own and each with one trace at most:
  marked: the marker in its environment.
  writer: the log, open for writing. Its environment is cleared, as those of the next ones.
  holder: the reading end of the dead-man pipe.
  traceless: nothing of it.
pids: the folder in which each process leaves a file named after its kind, holding its pid.
tough: whether the member itself disarms what the kernel would kill it by and clears all its
  traces, its environment as libraries do that change a process's title.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
DEAD_MAN_PIPE = 6
ANNOUNCE = 'echo $$ > "$0/.$1" && mv "$0/.$1" "$0/$1"; exec sleep 600'


def main() -> None:
    with os.fdopen(os.dup(5), "rb") as file:
        payload: dict[str, Any] = json.load(file)
    pids = Path(payload["pids"])
    for kind in payload.get("children", []):
        if os.fork() == 0:
            become(kind, str(pids))
    for kind in payload.get("children", []):
        while not (pids / kind).exists():
            signal.sigtimedwait([], 0.002)
    if payload.get("tough"):
        hold_on()
    temporary = pids / ".member"
    temporary.write_text(str(os.getpid()))
    temporary.rename(pids / "member")
    while True:
        signal.pause()


def become(kind: str, pids: str) -> NoReturn:
    os.setsid()
    if kind != "writer":
        let_go_of_log()
    if kind != "holder":
        os.close(DEAD_MAN_PIPE)
    environment = os.environ if kind == "marked" else {"PATH": os.environ["PATH"]}
    # By a program, so that nothing of ours is left once it has said that it is there.
    os.execve("/bin/sh", ["sh", "-c", ANNOUNCE, pids, kind], environment)


def hold_on() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    let_go_of_log()
    os.close(DEAD_MAN_PIPE)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(bytes(end - start))


def let_go_of_log() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(null, fd)


main()
