"""The users' programs of the matrix. Each starts helpers, says that all are there, and then does
what its name says. They are sent to the executors by value.

``args``: "tag" (unique to the repetition), "folder" (for the pid files), "helpers" (their roles),
"gate" (a file whose appearance lets a program that waits go on, in the folder).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

SEEN = ("plain", "session", "double", "leader", "cleared")
"""A plain child; one in a session of its own; one forked twice in one; one whose group has lost its
leader; and one in the member's group whose environment is empty."""

ALL = (*SEEN, "hidden")
""""hidden": a session of its own and an empty environment, null as standard streams, and no
descriptor that it has inherited."""


def _start_helpers(args: Any, ctx: Any) -> Path:
    folder = Path(args["folder"], f"{ctx.job_name}-{ctx.task_index}")
    folder.mkdir(exist_ok=True)
    (folder / "begun").touch()
    for role in args["helpers"]:
        environment = {} if role in ("cleared", "hidden") else None
        subprocess.Popen(
            [sys.executable, "-S", "-E", args["helper"], args["tag"], str(folder), role],
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=role in ("session", "hidden"),
        )
    for role in args["helpers"]:
        name = "leaderless" if role == "leader" else role
        while not (folder / f"{name}.pid").exists():
            time.sleep(0.002)
    return folder


def _announce(folder: Path, ctx: Any) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    told = {"pid": os.getpid(), "started": int(started), "executor_id": ctx.executor_id}
    draft = folder / ".member"
    draft.write_text(json.dumps(told))
    draft.rename(folder / "member.json")


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _wait_for_ever() -> NoReturn:
    while True:
        time.sleep(1000)


def stuck(args: Any, ctx: Any) -> None:
    """Ignores signals, and then no thread of its Python ever runs again: one waits in a C call
    that keeps the interpreter's lock."""
    import ctypes

    _ignore_signals()
    folder = _start_helpers(args, ctx)
    pause = ctypes.PyDLL(None).pause
    _announce(folder, ctx)
    threading.Thread(target=pause).start()
    _wait_for_ever()


def stubborn(args: Any, ctx: Any) -> None:
    """Ignores signals and being told to stop."""
    _ignore_signals()
    _announce(_start_helpers(args, ctx), ctx)
    _wait_for_ever()


def obedient(args: Any, ctx: Any) -> None:
    """Ends on SIGTERM, which its helpers do not."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _announce(_start_helpers(args, ctx), ctx)
    _wait_for_ever()


def polite(args: Any, ctx: Any) -> None:
    """Returns when it is told to stop; its helpers stay."""
    _announce(_start_helpers(args, ctx), ctx)
    ctx.wait_for_stop()


def gated(args: Any, ctx: Any) -> str:
    """Waits for its gate, then ends as that says: raise, return, exit, or eat memory."""
    folder = _start_helpers(args, ctx)
    _announce(folder, ctx)
    gate = Path(args["folder"], "gate")
    while not gate.exists():
        time.sleep(0.002)
    match gate.read_text():
        case "raise":
            raise RuntimeError("the matrix wants it so")
        case "exit":
            os._exit(3)
        case "eat":
            eaten = []
            while True:
                eaten.append(bytearray(os.urandom(2**20)))
    return "returned"


def server(args: Any, ctx: Any) -> None:
    """A TensorFlow server that holds tensors, as a parameter server does."""
    import tensorflow as tf

    kept = [tf.random.uniform((64, 2**18)) for _ in range(2)]
    _announce(_start_helpers(args, ctx), ctx)
    ctx.serve_forever()
    del kept


def mirrored(args: Any, ctx: Any) -> None:
    """MultiWorkerMirroredStrategy: the members add up numbers together, for ever."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def add() -> Any:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones((1024,)))

    @tf.function
    def step() -> Any:
        return strategy.run(add)

    step()
    _announce(_start_helpers(args, ctx), ctx)
    while True:
        step()


def quiet(args: Any, ctx: Any) -> None:
    """No helper, no harm: it waits until it is told to stop."""
    _announce(_start_helpers({**args, "helpers": ()}, ctx), ctx)
    ctx.wait_for_stop()


PROGRAMS = {
    each.__name__: each
    for each in (stuck, stubborn, obedient, polite, gated, server, mirrored, quiet)
}
