"""A member's process as unpleasant as users' code gets; what it does stands in its payload (fd 5).

children: roles of descendants to start first: plain, setsid, double... (fork, setsid, fork).
ignore: whether all of them ignore SIGTERM and SIGHUP.
pids: the folder in which each process leaves a file named after its role, holding its pid.
exit / signal: how the leader ends by itself, once all are there; otherwise it waits for ever.
on_stop: {"record": file, "exit": code}: record the line of the stop pipe, then exit.
entered: a file to make when all are there, or, with "enter" in on_stop, when told to stop.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    with os.fdopen(os.dup(5), "rb") as file:
        payload: dict[str, Any] = json.load(file)
    if payload.get("ignore"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pids = Path(payload["pids"])
    children = payload.get("children", [])
    for role in children:
        start(role, pids)
    for role in children:
        while not (pids / role).exists():
            signal.sigtimedwait([], 0.002)
    print("the member is up", flush=True)
    announce("member", pids)
    if "entered" in payload and not payload.get("on_stop", {}).get("enter"):
        Path(payload["entered"]).touch()
    if "exit" in payload:
        os._exit(payload["exit"])
    if "signal" in payload:
        os.kill(os.getpid(), payload["signal"])
    if "on_stop" in payload:
        leave_when_told(payload)
    wait_for_ever()


def start(role: str, pids: Path) -> None:
    if os.fork() != 0:
        return
    if role == "setsid" or role.startswith("double"):
        os.setsid()
    if role.startswith("double") and os.fork() != 0:
        os._exit(0)
    announce(role, pids)
    wait_for_ever()


def announce(role: str, pids: Path) -> None:
    temporary = pids / f".{role}"
    temporary.write_text(str(os.getpid()))
    temporary.rename(pids / role)


def leave_when_told(payload: dict[str, Any]) -> NoReturn:
    on_stop = payload["on_stop"]
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(4, 4096)
    record = Path(on_stop["record"])
    temporary = record.with_suffix(".part")
    temporary.write_bytes(line)
    temporary.rename(record)
    if on_stop.get("enter"):
        Path(payload["entered"]).touch()
    if "exit" in on_stop:
        os._exit(on_stop["exit"])
    wait_for_ever()


def wait_for_ever() -> NoReturn:
    while True:
        signal.pause()


main()
