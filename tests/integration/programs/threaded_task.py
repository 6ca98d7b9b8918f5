"""A task and, with an argument, its child; both speak JSON lines on the one standard output.

The task starts the child by a parent thread and says {"child": pid}. A line on stdin makes it end
the child; then it says {"ended": code} and how many {"threads"} it has left. The child ends on
SIGTERM with 7, and when its parent's end is told to it: then it says which signal it {"heard"}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from executor_agent.parent_thread import (
    PARENT_ENDED,
    ask_for_word_of_its_end,
    started_by_a_thread,
)


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def be_the_child(ready: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [PARENT_ENDED, signal.SIGTERM])
    ask_for_word_of_its_end()
    os.write(ready, b"!")
    heard = signal.sigwait([PARENT_ENDED, signal.SIGTERM])
    if heard == signal.SIGTERM:
        sys.exit(7)
    say({"heard": heard})


def be_the_task() -> None:
    read_fd, ready = os.pipe()
    command = [sys.executable, __file__, str(ready)]
    child = started_by_a_thread(lambda: subprocess.Popen(command, pass_fds=[ready]))
    os.close(ready)
    if os.read(read_fd, 1):
        say({"child": child.pid})
    sys.stdin.readline()
    child.terminate()
    say({"ended": child.wait()})
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(20.0)
    say({"threads": threading.active_count()})


if len(sys.argv) > 1:
    be_the_child(int(sys.argv[1]))
else:
    be_the_task()
