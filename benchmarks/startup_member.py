"""The member of `startup`: says when its `main_fun` was entered.

By itself, because it travels by value: executors need not have the benchmarks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

_GATE_TIMEOUT = 60.0


def enter(args: dict[str, str], ctx: Any) -> dict[str, Any]:
    """The `main_fun`.

    Args:
        args: {"gate": the file whose appearance lets it return; until then it can be looked at}.
        ctx: the member's context.

    Returns:
        ``entered_at``: Unix time. ``cpu``: seconds that the process has used until then.
        ``has_tensorflow``: whether it was imported by then.
    """
    told = {
        "entered_at": time.time(),
        "cpu": time.process_time(),
        "has_tensorflow": "tensorflow" in sys.modules,
    }
    give_up_at = time.monotonic() + _GATE_TIMEOUT
    while not Path(args["gate"]).exists():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no gate within {_GATE_TIMEOUT:g} s")
        if ctx.wait_for_stop(0.05):
            break
    return told
