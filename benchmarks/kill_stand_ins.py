"""The ways of launching a member from a Spark task that `kill_others` compares with ours, each
reduced to how it looks after its processes; and the member that all of them launch.

Runs in the Spark task's Python worker, and as a program of its own, with the standard library only.
Nobody else's product is run here, but for the watcher of Spark's TorchDistributor, which is loaded
from the installed Spark as it is.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

CHILD = "a daemonic child, as TensorFlowOnSpark"
WATCHER = "a parent watcher, as TorchDistributor"
GROUP = "a group killed in finally and atexit"
NOTHING = "nothing"
"""Ways of launching; the last launches nothing: a plain Spark task."""

STAND_INS = (CHILD, WATCHER, GROUP)

PROCESSES = ("member", "plain child", "own session", "orphan in own session")
"""What runs below the task, whichever way it was launched."""

TOKEN = "TFLEASE_BENCHMARK"
"""The environment variable by which the processes of one kill are found afterwards."""


def launch(way: str, facts: Path, token: str) -> None:
    """In the Spark task: launch the member, and wait for it as the way does. The task's own number
    is written first, beside the ``facts`` that the member writes."""
    if way != NOTHING:
        os.environ[TOKEN] = token
    _write(task_file(facts), os.getpid())
    if way == CHILD:
        # By fork, as on every Linux before Python 3.14.
        context = multiprocessing.get_context("fork")
        child = context.Process(target=be_member, args=(facts,), daemon=True)
        child.start()
        child.join()
    elif way == WATCHER:
        subprocess.run([sys.executable, __file__, "watcher", str(facts)], check=False)
    elif way == GROUP:
        _in_a_group(facts)
    else:
        _wait_for_ever()


def _in_a_group(facts: Path) -> None:
    command = [sys.executable, __file__, "member", str(facts)]
    member = subprocess.Popen(command, start_new_session=True)

    def end() -> None:
        if member.poll() is None:
            os.killpg(member.pid, signal.SIGKILL)

    atexit.register(end)
    try:
        member.wait()
    finally:
        end()


def _watch(facts: Path) -> None:
    """TorchDistributor's process between the task and torchrun; the thread that polls for the
    parent's end every 0.5 s runs Spark's own code."""
    # Not imported: pyspark.ml is large. As data, because Spark's copy for executors is a zip.
    source = pkgutil.get_data("pyspark", "ml/torch/torch_run_process_wrapper.py")
    if source is None:
        raise RuntimeError("pyspark is not installed for this interpreter: install it there")
    wrapper: dict[str, Any] = {"__name__": "torch_run_process_wrapper"}
    exec(source, wrapper)
    member = subprocess.Popen([sys.executable, __file__, "member", str(facts)])
    work = wrapper["check_parent_alive"]
    threading.Thread(target=work, args=(member,), daemon=True).start()
    member.wait()


def be_member(facts: Path) -> NoReturn:
    """Start the helpers, tell who they are, and stay. SIGTERM ends it, as it ends most programs."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tell(facts)
    _wait_for_ever()


def tell(facts: Path) -> None:
    """Start the helpers and write down the numbers of `PROCESSES`."""
    command = ["sleep", "600"]
    plain = subprocess.Popen(command)
    session = subprocess.Popen(command, start_new_session=True)
    orphan = subprocess.run(
        ["sh", "-c", "sleep 600 > /dev/null & echo $!"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    pids = (os.getpid(), plain.pid, session.pid, int(orphan.stdout))
    _write(facts, dict(zip(PROCESSES, pids, strict=True)))


def below_tflease(args: dict[str, Any], ctx: Any) -> None:
    """The same member as a `main_fun`.

    Args:
        args: {"facts": the file to tell the benchmark in, "token": to be found by}.
        ctx: the member's context.
    """
    os.environ[TOKEN] = args["token"]
    tell(Path(args["facts"]))
    _wait_for_ever()


def task_file(facts: Path) -> Path:
    """Where the Spark task writes its number."""
    return facts.with_suffix(".task")


def _write(path: Path, value: object) -> None:
    """All of it or nothing: others wait for the file."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(json.dumps(value))
    draft.rename(path)


def _wait_for_ever() -> NoReturn:
    while True:
        time.sleep(1000)


if __name__ == "__main__":
    {"member": be_member, "watcher": _watch}[sys.argv[1]](Path(sys.argv[2]))
