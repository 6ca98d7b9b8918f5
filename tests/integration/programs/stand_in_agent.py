"""An agent without a network; what it does stands in its configuration (fd 5).

log: file to which everything the sentinel says is appended, one JSON line each, and "eof".
commands: what to say to the sentinel once `after` exists (or at once).
exit: leave with this code once `after` exists (or at once), instead of commands.
done: whether to say "done" and leave after the exit was heard (default true).
stay: whether to stay when the sentinel is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any


def main() -> None:
    with os.fdopen(os.dup(5), "rb") as file:
        config: dict[str, Any] = json.load(file)
    control = socket.socket(fileno=3)
    while datagram := control.recv(65536):
        event = json.loads(datagram)
        note(config, event)
        if event["event"] == "started":
            on_started(config, control)
        if event["event"] == "exited" and config.get("done", True):
            control.send(b'{"command": "done"}')
            return
    note(config, {"event": "eof"})
    while config.get("stay"):
        signal.pause()


def on_started(config: dict[str, Any], control: socket.socket) -> None:
    after = config.get("after")
    while after is not None and not Path(after).exists():
        signal.sigtimedwait([], 0.002)
    if "exit" in config:
        os._exit(config["exit"])
    for command in config.get("commands", []):
        control.send(json.dumps(command).encode())


def note(config: dict[str, Any], event: dict[str, Any]) -> None:
    with open(config["log"], "a") as log:
        log.write(json.dumps(event) + "\n")


main()
