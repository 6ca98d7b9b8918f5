"""The sentinel, whose SIGKILL has no effect on the processes whose numbers stand in the file that
$TFLEASE_TEST_SPARED names: what it does about a process that cannot be killed, without one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from executor_agent import kill_rounds, sentinel
from executor_agent.processes import ProcessIdentity, signal_if_same

_SPARED = Path(os.environ["TFLEASE_TEST_SPARED"])


def _spare(identity: ProcessIdentity, number: int) -> bool:
    if number == signal.SIGKILL and str(identity.pid) in _SPARED.read_text().split():
        return True
    return signal_if_same(identity, number)


def main(argv: list[str]) -> int:
    kill_rounds.signal_if_same = _spare
    return sentinel.main(argv)
