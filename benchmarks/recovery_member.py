"""The members of `recovery` and `random-kills`: each says when its `main_fun` was entered.

By itself, because it travels by value: executors need not have the benchmarks.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

_TIMEOUT = 600.0


def wait(args: dict[str, Any], ctx: Any) -> None:
    """Makes progress once, so that each restart is followed by some; then waits.

    Args:
        args: {"stamps": the folder for what `stamp` writes}.
        ctx: the member's context.
    """
    stamp(Path(args["stamps"]), ctx)
    ctx.report_progress(ctx.generation)
    if not ctx.wait_for_stop(_TIMEOUT):
        raise TimeoutError(f"not told to stop within {_TIMEOUT:g} s")


def stall(args: dict[str, Any], ctx: Any) -> None:
    """Makes progress once, says when, and never again; deaf to a stop."""
    ctx.report_progress(1)
    stamp(Path(args["stamps"]), ctx)
    time.sleep(_TIMEOUT)


def train(args: dict[str, Any], ctx: Any) -> Any:
    """The digits in step, as the example has it.

    Args:
        args: {"stamps", "steps"}.
        ctx: the member's context.

    Returns:
        What the example returns.
    """
    from examples.digits_sync import train_in_step

    stamp(Path(args["stamps"]), ctx)
    return train_in_step({"steps": args["steps"]}, ctx)


def stamp(folder: Path, ctx: Any) -> None:
    """A file for this member in this generation: {"at": Unix time, "pid", "step": of the checkpoint
    that it finds, 0 without one}."""
    at = time.time()
    latest = ctx.latest_checkpoint() or "-0"
    told = {"at": at, "pid": os.getpid(), "step": int(latest.rpartition("-")[2])}
    path = folder / f"{ctx.generation}-{ctx.task_index}"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.rename(path)
