"""The Spark task's part, in a process of its own so that a test can kill it.

argv[1] is a JSON file: the launch, in plain values. Says {"sentinel": [pid, create_time]} when it
has started, and the tombstone when it has finished, one JSON line each. A line on stdin makes it
return while the sentinel runs. With "hung_up", a path, it goes on until that is there.

A detached sentinel is handed over instead, once the member has entered; then it says
{"handed_over": true} and, as a worker that Spark uses again, answers every line on stdin: "end", or
anything else, by running a child of its own and saying which children it had before.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from executor_agent.launcher import SentinelProcess
from executor_agent.member_launch import MemberLaunch
from executor_agent.processes import ProcessIdentity, my_identity


def main() -> None:
    raw: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    if "bystander" in raw:  # a child of the task, but none of ours
        subprocess.Popen(raw.pop("bystander"), stdin=subprocess.DEVNULL)
    hung_up = raw.pop("hung_up", "")
    watch = {name: ProcessIdentity(*identity) for name, identity in raw.pop("watch").items()}
    launch = MemberLaunch(
        **{
            **raw,
            "watch": {"task": my_identity(), **watch},
            "directory": Path(raw["directory"]),
            "claim": Path(raw["claim"]),
            "cwd": Path(raw["cwd"]),
            "agent_argv": tuple(raw["agent_argv"]),
            "member_argv": tuple(raw["member_argv"]),
            "agent_config": raw["agent_config"].encode(),
            "payload": raw["payload"].encode(),
        }
    )
    sentinel = SentinelProcess(launch, lambda: bool(hung_up) and Path(hung_up).exists())
    with sentinel:
        identity = sentinel.identity
        print(json.dumps({"sentinel": [identity.pid, identity.create_time]}), flush=True)
        if hung_up:
            sentinel.watch()
        elif launch.detached:
            if sentinel.hold():
                print(json.dumps({"handed_over": True}), flush=True)
                be_used_again()
                return
        else:
            wait_to_return(sentinel)
    print(sentinel.finish().to_json(), flush=True)


def wait_to_return(sentinel: SentinelProcess) -> None:
    while not sentinel.wait(0.02):
        if select.select([sys.stdin], [], [], 0)[0]:
            return


def be_used_again() -> None:
    for line in sys.stdin:
        if line.strip() == "end":
            return
        try:
            children = [os.waitpid(-1, os.WNOHANG)[0]]
        except ChildProcessError:
            children = []
        subprocess.run(["true"], check=True)
        print(json.dumps({"children": children}), flush=True)


main()
