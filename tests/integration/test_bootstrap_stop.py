"""How a member's process learns that it is to end, and ends, with real processes and pipes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from tests.integration.bootstrap_harness import ROOT, MemberProcess, wait_until

# Programs below are pickled by value: no process can import a test module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow  # each starts an interpreter: 0.2 to 0.5 s


def waits(args: Any, ctx: Any) -> str:
    ctx.on_stop(lambda: print("callback called"))
    ctx.wait_for_stop()
    assert ctx.should_stop
    return "stopped"


def test_a_stop_before_the_start_ends_at_once_without_an_outcome(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, waits) as member:
        member.expect("ready")
        member.stop()
        assert member.wait(20) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"member.log", "stacks"}


def test_a_stop_during_the_preload_does_not_wait_for_it(tmp_path: Path) -> None:
    lines = ("import time", "print('importing', flush=True)", "time.sleep(600)")
    (tmp_path / "endless.py").write_text("\n".join(lines))
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with MemberProcess(tmp_path / "m", waits, preload=("endless",), env=env) as member:
        wait_until(lambda: "importing" in member.log())
        member.stop()
        assert member.wait(5) == 0


def test_a_stop_is_told_to_main_fun(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, waits) as member:
        member.start(grace=30)
        member.stop(grace=30)
        assert member.wait(20) == 0
        assert member.result() == "stopped"
        assert "callback called" in member.log()


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b'{"reason": 1}\n', b"not json\n"], ids=repr)
def test_a_stop_that_is_badly_spelled_is_a_stop(tmp_path: Path, line: bytes) -> None:
    with MemberProcess(tmp_path, waits) as member:
        member.start()
        assert member.stop_write is not None
        os.write(member.stop_write, line)
        assert member.wait(20) == 0
        assert member.result() == "stopped"


def test_sigterm_keeps_its_default_action(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, waits) as member:
        member.start()
        os.kill(member.pid, signal.SIGTERM)
        assert member.wait(20) == -signal.SIGTERM


def ignores_stops(args: Any, ctx: Any) -> None:
    child = subprocess.Popen(["sleep", "600"])
    print("child", child.pid, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(600)


@pytest.mark.parametrize("pipe", ["task_write", "stop_write"])
def test_an_orphan_kills_its_group_when_the_grace_is_over(tmp_path: Path, pipe: str) -> None:
    with MemberProcess(tmp_path, ignores_stops) as member:
        member.start(grace=0.2)
        wait_until(lambda: "child" in member.log())
        child = int(member.log().split("child")[1].split()[0])
        began = time.monotonic()
        member.close(pipe)  # the Spark task, or the sentinel, is gone
        assert member.wait(20) == -signal.SIGKILL
        assert 2.2 <= time.monotonic() - began < 10
        wait_until(lambda: not is_alive(child))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_an_orphan_may_save_within_its_grace(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, waits) as member:
        member.start(grace=30)
        member.close("task_write")
        assert member.wait(20) == 0
        assert member.result() == "stopped"


def test_a_descriptor_that_user_code_reuses_is_not_taken_for_ours(tmp_path: Path) -> None:
    def reuses(args: Any, ctx: Any) -> bool:
        os.closerange(3, 8)
        read, write = os.pipe()
        os.dup2(read, 7)
        os.close(write)  # a pipe that has hung up, under the number of the Spark task's
        return bool(ctx.wait_for_stop(0.3))

    with MemberProcess(tmp_path, reuses) as member:
        member.start()
        assert member.wait(20) == 0
        assert member.result() is False


def test_an_anchor_without_a_task_pipe_disturbs_nobody(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, waits, without_task_pipe=True) as member:
        member.start(grace=30)
        member.stop()
        assert member.wait(20) == 0
        assert member.result() == "stopped"
