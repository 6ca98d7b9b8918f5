"""Rounds of SIGKILL on real processes: nobody is missed, and nobody asked more often than needed.

The processes hang below this one, so each round runs in a process of its own, which is a subreaper
as the sentinel is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, os, subprocess, sys, time
from executor_agent import kill_rounds, linux, processes

linux.become_subreaper()
asked = []
def counted(pid, really=processes.children_of):
    asked.append(pid)
    return really(pid)
kill_rounds.children_of = counted

# A parent with two children, one of them in a session of its own, and a bystander that is spared.
sleeper = "import time; time.sleep(600)"
script = (
    "import subprocess, sys, time\\n"
    f"a = subprocess.Popen([sys.executable, '-S', '-c', {sleeper!r}])\\n"
    f"b = subprocess.Popen([sys.executable, '-S', '-c', {sleeper!r}], start_new_session=True)\\n"
    "print(a.pid, b.pid, flush=True)\\n"
    "time.sleep(600)\\n"
)
parent = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True)
children = [int(pid) for pid in parent.stdout.readline().split()]
bystander = subprocess.Popen([sys.executable, "-S", "-c", sleeper])

rounds = kill_rounds.KillRounds()
first = [each.pid for each in rounds.run(without=bystander.pid)]
asked.clear()
again, number = [], 0
while rounds.remaining:
    number += 1
    again += [each.pid for each in rounds.run(without=bystander.pid)]
    # Zombies stay until somebody buries them; before that the second look was made at all.
    if number > 3:
        try:
            while os.waitpid(-1, os.WNOHANG)[0] not in (0, bystander.pid):
                pass
        except ChildProcessError:
            break
    time.sleep(0.005)
answer = {
    "parent": parent.pid, "children": children, "first": first, "again": again,
    "asked": asked, "bystander lives": bystander.poll() is None,
}
bystander.kill(); bystander.wait()
print(json.dumps(answer))
"""


def test_each_is_killed_once_and_asked_for_its_children_once_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    everybody = {told["parent"], *told["children"]}
    assert set(told["first"]) == everybody
    assert told["again"] == []
    assert told["bystander lives"]
    # After its SIGKILL nobody can get a child any more: one more reading is enough.
    for pid in everybody:
        assert told["asked"].count(pid) <= 1
