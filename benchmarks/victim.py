"""The member that `kill_latency` kills: a TensorFlow process of a realistic shape.

It has done some work, holds tensors, serves as a parameter server does, and has started helpers
that hide: in a session of their own, and orphaned in one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

_PIECE_MIB = 64
HELPERS = 3  # processes below the TensorFlow process that `start_helpers` leaves running


def serve(args: dict[str, Any], ctx: Any) -> int:
    """The `main_fun`: work, start helpers, tell the benchmark, and serve until killed.

    Args:
        args: {"tensor_mib": what to hold in tensors, "facts": the file to tell the benchmark in}.
        ctx: the member's context.
    """
    import tensorflow as tf

    @tf.function
    def step(matrix: Any) -> Any:
        return tf.linalg.matmul(matrix, matrix) / 64.0

    matrix = tf.random.uniform((256, 256))
    for _ in range(20):
        matrix = step(matrix)
    pieces = args["tensor_mib"] // _PIECE_MIB
    kept = [tf.random.uniform((_PIECE_MIB, 1024 * 256)) for _ in range(pieces)]
    start_helpers()
    facts = {
        "pid": os.getpid(),
        "address": ctx.cluster_spec[ctx.job_name][ctx.task_index],
        "threads": len(os.listdir("/proc/self/task")),
    }
    path = Path(args["facts"])
    path.with_suffix(".new").write_text(json.dumps(facts))
    path.with_suffix(".new").rename(path)
    ctx.serve_forever()
    return len(kept)


def start_helpers() -> None:
    """A plain child; one in a session of its own; one that its parent has left, in its own too."""
    command = ["sleep", "600"]
    subprocess.Popen(command)
    subprocess.Popen(command, start_new_session=True)
    subprocess.run(["sh", "-c", "sleep 600 &"], start_new_session=True, check=True)


def idle(args: Any, ctx: Any) -> None:
    """The `main_fun` of a member that does nothing until it is told to stop."""
    ctx.wait_for_stop()


def cooperate(args: Any, ctx: Any) -> None:
    """The `main_fun` of a run whose parameter server serves, and whose worker leaves when told."""
    if ctx.job_name == "ps":
        ctx.serve_forever()
    ctx.wait_for_stop()
