"""Where a member's process stands, asked from outside while it is stuck in every way (E5)."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from executor_agent.core.stacks import LIMIT
from executor_agent.processes import ProcessIdentity, identity_of, is_running
from executor_agent.stacks import StacksUnavailable, dump
from tests.integration.bootstrap_harness import MemberProcess, reserved_port, wait_until

# Programs below are pickled by value: no process can import a test module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow  # each starts an interpreter

FIRST = "Main thread (most recent call first):\n"


def identity(member: MemberProcess) -> ProcessIdentity:
    found = identity_of(member.pid)
    assert found is not None
    return found


def ask(member: MemberProcess) -> str:
    return dump(member.directory, identity(member))


def ask_until(member: MemberProcess, words: str) -> str:
    """Asks until the main thread stands there: it takes a moment to come that far."""
    found = [""]

    def is_there() -> bool:
        found[0] = ask(member)
        assert found[0].startswith(FIRST), found[0]
        return words in found[0].partition("\n\n")[0]

    wait_until(is_there, 60.0)
    assert len(found[0].encode()) <= LIMIT
    return found[0]


def loops(args: Any, ctx: Any) -> int:
    count = 0
    while not ctx.should_stop:
        count += 1
    return count


def test_in_a_loop_of_python(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, loops) as member:
        member.start(grace=30.0)
        text = ask_until(member, " in loops\n")
        assert text.count(FIRST) == 1
        assert 'Thread "tflease-watcher" (most recent call first):' in text
        for _ in range(20):
            ask(member)
        member.stop(grace=30.0)
        assert member.wait(20) == 0
        assert member.result() > 0


def sleeps(args: Any, ctx: Any) -> float:
    began = time.monotonic()
    time.sleep(1.5)
    return time.monotonic() - began


def test_in_a_sleep_that_it_does_not_end(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, sleeps) as member:
        member.start()
        assert ask_until(member, " in sleeps\n").splitlines()[1].endswith(" in sleeps")
        assert member.wait(20) == 0
        assert member.result() >= 1.5


def holds_the_interpreter(args: Any, ctx: Any) -> int:
    """Native code that never gives up the GIL, and would be cut short by a signal."""
    return int(ctypes.PyDLL(None).usleep(args))


def test_in_native_code_that_holds_the_interpreter(tmp_path: Path) -> None:
    """No Python runs in that process, neither ours nor anybody's."""
    with MemberProcess(tmp_path, holds_the_interpreter, 5_000_000) as member:
        member.start()
        wait_until((tmp_path / "entered").exists)
        text = ask_until(member, " in holds_the_interpreter\n")
        assert "Thread 0x" in text, "faulthandler has told it"
        assert member.wait(20) == 0
        assert member.result() == 0, "usleep was not interrupted"


def waits_for_a_peer(args: Any, ctx: Any) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

    print("sum", float(strategy.run(step)), flush=True)
    if ctx.task_index == 0:
        print("sum", float(strategy.run(step)), flush=True)  # the other one never comes
    else:
        ctx.wait_for_stop()


@pytest.mark.tensorflow
def test_in_a_collective_that_waits_for_a_peer(tmp_path: Path) -> None:
    env = {"TF_CPP_MIN_LOG_LEVEL": "1"}
    with (
        reserved_port() as one,
        reserved_port() as two,
        MemberProcess(tmp_path / "0", waits_for_a_peer, preload=("tensorflow",), env=env) as stuck,
        MemberProcess(tmp_path / "1", waits_for_a_peer, preload=("tensorflow",), env=env) as other,
    ):
        spec = {"worker": [f"127.0.0.1:{one}", f"127.0.0.1:{two}"]}
        members = (stuck, other)
        for index, member in enumerate(members):
            member.expect("ready")
            member.send_start(cluster_spec=spec, task_index=index)
        for member in members:
            member.expect("running")
        wait_until(lambda: all("sum 2.0" in member.log() for member in members), 90.0)
        text = ask_until(stuck, "/tensorflow/python/eager/")
        assert " in waits_for_a_peer\n" in text
        assert " in wait_for_stop\n" in ask_until(other, " in wait_for_stop\n")
        for _ in range(20):
            ask(stuck)
        assert is_running(identity(stuck))


def has_handlers(args: Any, ctx: Any) -> list[str]:
    heard: list[str] = []
    for number in (signal.SIGUSR1, signal.SIGRTMIN, signal.SIGRTMAX):
        signal.signal(number, lambda number, _: heard.append(signal.Signals(number).name))
    print("ready", flush=True)
    while not ctx.should_stop:
        time.sleep(0.01)
    return heard


def test_the_handlers_of_user_code_are_left_alone(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, has_handlers) as member:
        member.start(grace=30.0)
        wait_until(lambda: "ready" in member.log())
        ask(member)
        os.kill(member.pid, signal.SIGUSR1)
        member.stop(grace=30.0)
        assert member.wait(20) == 0
        assert member.result() == ["SIGUSR1"]


def many_threads(args: Any, ctx: Any) -> None:
    for number in range(150):
        name = f"waits {number}"
        threading.Thread(target=ctx.wait_for_stop, name=name, daemon=True).start()
    loops(args, ctx)


def test_of_many_threads_the_main_one_is_told(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, many_threads) as member:
        member.start(grace=30.0)
        text = ask_until(member, " in loops\n")
        assert text.endswith("(more is left out)\n")


def test_a_stopped_process_does_not_answer_and_goes_on_unharmed(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, loops) as member:
        member.start(grace=30.0)
        os.kill(member.pid, signal.SIGSTOP)
        with pytest.raises(StacksUnavailable, match="did not answer within 2 s"):
            ask(member)
        os.kill(member.pid, signal.SIGCONT)
        ask_until(member, " in loops\n")
        member.stop(grace=30.0)
        assert member.wait(20) == 0


def becomes_another(args: Any, ctx: Any) -> None:
    os.execv("/bin/sleep", ["sleep", "600"])


def test_a_program_that_took_the_process_over_is_not_signalled(tmp_path: Path) -> None:
    """The same process by its number and its start time; the signal would kill it."""
    with MemberProcess(tmp_path, becomes_another) as member:
        member.start()
        wait_until(lambda: Path(f"/proc/{member.pid}/comm").read_text() == "sleep\n")
        with pytest.raises(StacksUnavailable, match="does not expect our signals"):
            ask(member)
        assert is_running(identity(member))


def closes_everything(args: Any, ctx: Any) -> None:
    os.closerange(3, 1024)
    with open(args, "wb", buffering=0) as mine:
        for number in range(20, 3, -1):
            os.dup2(mine.fileno(), number)
        print("closed", flush=True)
        time.sleep(600)


def test_a_descriptor_that_user_code_reuses_is_not_written_to(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with MemberProcess(tmp_path / "m", closes_everything, str(mine)) as member:
        member.start()
        wait_until(lambda: "closed" in member.log())
        with pytest.raises(StacksUnavailable, match="has closed the file 'stacks'"):
            ask(member)
        assert mine.stat().st_size == 0


def test_nobody_else_is_asked(tmp_path: Path) -> None:
    with MemberProcess(tmp_path / "m", loops) as member:
        member.start()
        me = identity(member)
        with pytest.raises(ProcessLookupError):
            dump(member.directory, ProcessIdentity(me.pid, me.create_time + 1.0))
        ours = identity_of(os.getpid())
        assert ours is not None
        with pytest.raises(StacksUnavailable, match="is not the one that answers here"):
            dump(member.directory, ours)
        with pytest.raises(FileNotFoundError):
            dump(tmp_path, me)
        file = member.directory / "stacks"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.write_text("nonsense\n")
        with pytest.raises(StacksUnavailable, match="not the first line"):
            dump(member.directory, me)


def test_a_fork_of_the_process_does_not_answer_for_it(tmp_path: Path) -> None:
    def forks(args: Any, ctx: Any) -> None:
        if os.fork() == 0:
            time.sleep(600)
        loops(args, ctx)

    with MemberProcess(tmp_path, forks) as member:
        member.start(grace=30.0)
        assert ask_until(member, " in loops\n").count(FIRST) == 1


PY_SPY = """\
#!{python}
import json, sys
assert sys.argv[1:5] == ["dump", "--nonblocking", "--json", "--pid"], sys.argv
frame = {{"name": "spied", "filename": "/app/train.py", "line": 3}}
print(json.dumps([{{"thread_id": 1, "thread_name": "MainThread", "frames": [frame]}}]))
"""


def test_py_spy_is_asked_where_python_cannot_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for it: what matters is when it is asked, and what becomes of its answer."""
    program = tmp_path / "py-spy"
    program.write_text(PY_SPY.format(python=sys.executable))
    program.chmod(0o755)
    with MemberProcess(tmp_path / "m", loops) as member:
        member.start(grace=30.0)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert "spied" not in ask(member)
        os.kill(member.pid, signal.SIGSTOP)
        assert ask(member) == f'{FIRST}  File "/app/train.py", line 3 in spied\n'
        program.write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(StacksUnavailable, match="did not answer"):
            ask(member)
        os.kill(member.pid, signal.SIGCONT)
