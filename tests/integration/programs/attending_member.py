"""A member's process that speaks to its agent as a real one does, and is as unpleasant as
nasty_member.py: says that it is ready, is started, says that it runs, and does what that one does.

With "forming" in its payload it does not wait to be started: its run never forms.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
from pathlib import Path

from executor_agent.framing import Channel


def main() -> None:
    with os.fdopen(os.dup(5), "rb") as file:
        payload = json.load(file)
    os.lseek(5, 0, os.SEEK_SET)  # the other one reads it as well
    channel = Channel(socket.socket(fileno=3))
    channel.send({"event": "ready", "versions": {}})
    if not payload.get("forming"):
        start = channel.receive()
        assert start is not None
        assert start["command"] == "start"
        channel.send({"event": "running"})
    runpy.run_path(str(Path(__file__).with_name("nasty_member.py")))


main()
