"""The members of `crash`: each plays a part, and writes down when it began to die.

By itself, because it travels by value: executors need not have the benchmarks.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

RAISE, KILL, PEER, LATE, STAY = "raises", "is killed", "loses a peer", "raises later", "stays"
"""Parts. LATE: `LATER` seconds after the others. STAY: until it is told to stop."""

LATER = 2.0
MESSAGE = "crashed for the benchmark"

_TIMEOUT = 120.0
_LOOK = 0.005  # seconds between two looks for the gate


def play(args: dict[str, Any], ctx: Any) -> None:
    """The `main_fun`.

    Args:
        args: {"parts": by task index, "gate": the file whose appearance begins it, "stamps": the
            folder that gets a file with a Unix time for each member that dies}.
        ctx: the member's context.
    """
    part = args["parts"][ctx.task_index]
    give_up_at = time.monotonic() + _TIMEOUT
    while not Path(args["gate"]).exists():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no gate within {_TIMEOUT:g} s")
        time.sleep(_LOOK)
    if part == STAY:
        if not ctx.wait_for_stop(_TIMEOUT):
            raise TimeoutError(f"not told to stop within {_TIMEOUT:g} s")
        return
    if part == LATE and ctx.wait_for_stop(LATER):
        return
    die(part, Path(args["stamps"], str(ctx.task_index)))


def die(part: str, stamp: Path) -> None:
    """The time first: what writing it takes counts for the crash."""
    stamp.write_text(repr(time.time()))
    if part == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if part == PEER:
        raise ConnectionResetError(MESSAGE)
    raise RuntimeError(MESSAGE)
