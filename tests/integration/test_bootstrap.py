"""The life of a member's process, with real processes and descriptors but without TensorFlow."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from executor_agent.core.outcome import Status
from tests.integration.bootstrap_harness import MemberProcess

# Programs below are pickled by value: no process can import a test module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow  # each starts an interpreter: 0.2 to 0.5 s


def tell_all(args: Any, ctx: Any) -> dict[str, Any]:
    names = ("TF_CONFIG", "TF_GRPC_REUSE_PORT", "GREETING", "REMOVED")
    print("hello from main_fun")
    return {
        "args": args,
        "ctx": (ctx.job_name, ctx.task_index, ctx.generation, ctx.executor_id, ctx.model_dir),
        "env": {name: os.environ.get(name) for name in names},
    }


def test_a_run_from_ready_to_result(tmp_path: Path) -> None:
    spec = {"worker": ["127.0.0.1:4000", "127.0.0.1:4001"]}
    with MemberProcess(tmp_path, tell_all, {"x": 1}, env={"REMOVED": "was here"}) as member:
        ready = member.expect("ready")
        assert ready["versions"]["python"] == sys.version.split()[0]
        assert ready["versions"]["json"] == json.__version__
        member.send_start(
            task_index=1,
            cluster_spec=spec,
            generation=4,
            model_dir="/models",
            env={"GREETING": "hello", "REMOVED": None},
        )
        member.expect("running")
        finished = member.expect("finished")
        assert member.wait(20) == 0
        outcome = member.outcome()
        result = member.result()
        assert "hello from main_fun" in member.log()
    assert (outcome.status, outcome.has_result, outcome.exit_code) == (Status.RETURNED, True, 0)
    assert finished["outcome"] == outcome.to_json()
    assert result["args"] == {"x": 1}
    assert result["ctx"] == ("worker", 1, 4, "7", "/models")
    config = json.loads(result["env"].pop("TF_CONFIG"))
    assert config == {"cluster": spec, "task": {"type": "worker", "index": 1}}
    assert result["env"] == {"TF_GRPC_REUSE_PORT": "true", "GREETING": "hello", "REMOVED": None}
    for name in ("outcome.json", "result.pkl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*"))  # no half-written file is left


def test_what_main_fun_raises_is_kept_and_begins_in_main_fun(tmp_path: Path) -> None:
    def fails(args: Any, ctx: Any) -> None:
        raise ValueError("no such batch")

    with MemberProcess(tmp_path, fails) as member:
        member.start()
        assert member.wait(20) == 1
        outcome, log = member.outcome(), member.log()
    assert (outcome.status, outcome.exception_type) == (Status.RAISED, "ValueError")
    assert (outcome.message, outcome.peer_lost, outcome.exit_code) == ("no such batch", False, 1)
    assert "in fails" in outcome.traceback
    assert "executor_agent" not in outcome.traceback
    assert "ValueError: no such batch" in log


def test_a_lost_peer_is_marked(tmp_path: Path) -> None:
    def fails(args: Any, ctx: Any) -> None:
        raise ConnectionResetError("peer")

    with MemberProcess(tmp_path, fails) as member:
        member.start()
        assert member.wait(20) == 1
        assert member.outcome().peer_lost


@pytest.mark.parametrize(
    "argument, status, exit_code, message",
    [
        (0, Status.RETURNED, 0, ""),
        (None, Status.RETURNED, 0, ""),
        (9, Status.EXITED, 9, "sys.exit(9)"),
        (-1, Status.EXITED, 255, "sys.exit(-1)"),
        ("cannot go on", Status.EXITED, 1, "cannot go on"),
    ],
)
def test_sys_exit_is_an_outcome(
    tmp_path: Path, argument: object, status: Status, exit_code: int, message: str
) -> None:
    with MemberProcess(tmp_path, lambda args, ctx: sys.exit(args), argument) as member:
        member.start()
        assert member.wait(20) == exit_code
        outcome = member.outcome()
        assert message in member.log() or status is not Status.EXITED or exit_code != 1
    assert (outcome.status, outcome.exit_code, outcome.message) == (status, exit_code, message)
    assert not outcome.has_result


def test_a_killed_process_leaves_no_outcome_but_its_stack(tmp_path: Path) -> None:
    def crashes(args: Any, ctx: Any) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    with MemberProcess(tmp_path, crashes) as member:
        member.start()
        assert member.wait(20) == -signal.SIGSEGV
        assert "Fatal Python error: Segmentation fault" in member.log()
        assert "in crashes" in member.log()
        assert not (tmp_path / "outcome.json").exists()


def test_a_result_that_cannot_be_pickled_is_a_warning_that_names_it(tmp_path: Path) -> None:
    def returns_a_lock(args: Any, ctx: Any) -> dict[str, Any]:
        import threading

        return {"loss": 0.5, "guard": threading.Lock()}

    with MemberProcess(tmp_path, returns_a_lock) as member:
        member.start()
        assert member.wait(20) == 0
        outcome = member.outcome()
        assert outcome.message in member.log()
    assert (outcome.status, outcome.has_result) == (Status.RETURNED, False)
    assert "the entry 'guard', a lock, cannot be pickled" in outcome.message
    assert [path.name for path in tmp_path.iterdir() if "result" in path.name] == []


def test_a_missing_module_says_where_and_what_to_install(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, tell_all, preload=("json", "no_such_module")) as member:
        finished = member.expect("finished")
        assert member.wait(20) == 3
        outcome = member.outcome()
    assert finished["outcome"]["status"] == "preload_failed"
    assert outcome.status is Status.PRELOAD_FAILED
    assert f"{sys.executable} -m pip install no_such_module" in outcome.message


@pytest.mark.parametrize(
    "payload", [b"", b"\x80\x04garbage", b"cno_such_module\nmain_fun\n."], ids=repr
)
def test_a_payload_that_cannot_be_read_is_an_outcome(tmp_path: Path, payload: bytes) -> None:
    with MemberProcess(tmp_path, payload) as member:
        member.expect("ready")
        member.send_start()
        member.expect("finished")
        assert member.wait(20) == 4
        outcome = member.outcome()
    assert outcome.status is Status.PAYLOAD_FAILED
    assert "cannot unpickle main_fun" in outcome.message


def test_a_start_command_that_makes_no_sense_is_an_outcome(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, tell_all) as member:
        member.expect("ready")
        member.send_start(grace=None)
        assert member.wait(20) == 1
        assert "start command not understood" in member.outcome().message


def test_an_agent_that_goes_before_the_start_is_an_outcome(tmp_path: Path) -> None:
    with MemberProcess(tmp_path, tell_all) as member:
        member.expect("ready")
        member.socket.close()
        assert member.wait(20) == 1
        outcome = member.outcome()
    assert outcome.exception_type is not None
    assert outcome.exception_type.endswith("AgentLost")
    assert not outcome.peer_lost


def test_an_agent_that_goes_later_does_not_disturb_training(tmp_path: Path) -> None:
    def trains(args: Any, ctx: Any) -> str:
        ctx.wait_for_stop(60)
        for step in range(100):
            ctx.report_progress(step)
        return "done"

    with MemberProcess(tmp_path, trains) as member:
        member.start()
        member.socket.close()
        member.stop()
        assert member.wait(20) == 0
        assert member.result() == "done"


def test_progress_and_its_last_report_arrive(tmp_path: Path) -> None:
    def trains(args: Any, ctx: Any) -> None:
        for step in range(1, 501):
            ctx.report_progress(step, loss=1 / step)

    with MemberProcess(tmp_path, trains) as member:
        member.start()
        events = list(member.events_until("finished"))
        assert member.wait(20) == 0
    last = {"event": "progress", "step": 500, "metrics": {"loss": 0.002}, "section": "step"}
    assert events[-2] == last
    assert 1 <= len(events) - 1 <= 10


def test_threads_and_atexit_callbacks_finish_before_the_end(tmp_path: Path) -> None:
    def saves_behind_its_back(args: Any, ctx: Any) -> None:
        import atexit
        import threading

        def save() -> None:
            time.sleep(0.5)
            Path(args, "checkpoint").write_text("whole")

        atexit.register(lambda: Path(args, "atexit").write_text("called"))
        threading.Thread(target=save).start()
        print("without a newline", end="")  # must be flushed

    with MemberProcess(tmp_path, saves_behind_its_back, str(tmp_path)) as member:
        member.start()
        member.expect("finished")
        assert not (tmp_path / "checkpoint").exists()  # the outcome did not wait for it
        assert member.wait(20) == 0
        assert "without a newline" in member.log()
    assert (tmp_path / "checkpoint").read_text() == "whole"
    assert (tmp_path / "atexit").read_text() == "called"


def test_native_output_is_flushed(tmp_path: Path) -> None:
    def prints_natively(args: Any, ctx: Any) -> None:
        import ctypes

        ctypes.CDLL(None).printf(b"from native code")

    with MemberProcess(tmp_path, prints_natively) as member:
        member.start()
        assert member.wait(20) == 0
        assert "from native code" in member.log()


def test_helpers_do_not_inherit_our_descriptors(tmp_path: Path) -> None:
    def starts_a_helper(args: Any, ctx: Any) -> str:
        command = ["ls", "-l", "/proc/self/fd"]
        return subprocess.run(
            command, close_fds=False, capture_output=True, text=True, check=True
        ).stdout

    with MemberProcess(tmp_path, starts_a_helper) as member:
        member.start()
        assert member.wait(20) == 0
        listing = member.result()
    assert "socket" not in listing
    assert "payload" not in listing


@pytest.mark.parametrize("end", ["return", "raise", "exit"])
def test_a_fork_that_comes_back_writes_no_outcome(tmp_path: Path, end: str) -> None:
    def forks(args: Any, ctx: Any) -> str:
        child = os.fork()
        if child == 0:
            if args == "raise":
                raise ValueError("in the child")
            if args == "exit":
                sys.exit(5)
            return "child"
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert not Path(ctx.local_dir).parent.joinpath("outcome.json").exists()
        return f"parent, child ended with {status}"

    with MemberProcess(tmp_path, forks, end) as member:
        member.start()
        (finished,) = member.events_until("finished")
        assert member.wait(20) == 0
        codes = {"return": 0, "raise": 1, "exit": 5}
        assert member.result() == f"parent, child ended with {codes[end]}"
        assert finished["outcome"]["status"] == "returned"


def test_an_outcome_that_cannot_be_written_still_reaches_the_agent(tmp_path: Path) -> None:
    def removes_its_directory(args: Any, ctx: Any) -> None:
        import shutil

        shutil.rmtree(args)

    with MemberProcess(tmp_path / "m", removes_its_directory, str(tmp_path / "m")) as member:
        member.start()
        finished = member.expect("finished")
        assert member.wait(20) == 1
        assert finished["outcome"]["status"] == "returned"
        assert "was not kept: result.pkl cannot be written" in finished["outcome"]["message"]
