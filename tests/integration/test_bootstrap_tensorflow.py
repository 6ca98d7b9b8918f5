"""Members with TensorFlow in them: one server on a held port, and a small training cluster."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from examples.digits_training import train_digits
from executor_agent.core.outcome import Status
from tests.integration.bootstrap_harness import (
    ROOT,
    MemberProcess,
    can_connect,
    reserved_port,
    wait_until,
)

# Programs below are pickled by value: no process can import a test module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "1"}


def serve(args: Any, ctx: Any) -> None:
    ctx.serve_forever()


def refuses_a_stranger(port: int) -> bool:
    with socket.socket() as stranger:
        try:
            stranger.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def test_a_server_starts_on_the_held_port_and_ends_with_the_stop(tmp_path: Path) -> None:
    with (
        reserved_port() as port,
        MemberProcess(tmp_path, serve, preload=("tensorflow",), env=QUIET) as member,
    ):
        assert "tensorflow" in member.expect("ready")["versions"]
        assert refuses_a_stranger(port)  # held by us alone
        member.send_start(job_name="ps", cluster_spec={"ps": [f"127.0.0.1:{port}"]})
        member.expect("running")
        wait_until(lambda: can_connect(port))
        assert refuses_a_stranger(port)  # held by both
        member.stop()
        began = time.monotonic()
        assert member.wait(20) == 0
        assert time.monotonic() - began < 5
        assert not can_connect(port)
        assert member.outcome().status is Status.RETURNED


def test_sigterm_ends_a_serving_member(tmp_path: Path) -> None:
    """The step after the grace: nothing TensorFlow installs may swallow it."""
    with (
        reserved_port() as port,
        MemberProcess(tmp_path, serve, preload=("tensorflow",), env=QUIET) as member,
    ):
        member.start(job_name="ps", cluster_spec={"ps": [f"127.0.0.1:{port}"]})
        wait_until(lambda: can_connect(port))
        os.kill(member.pid, signal.SIGTERM)
        assert member.wait(10) == -signal.SIGTERM


@contextmanager
def digits_cluster(
    directory: Path, workers: int, args: dict[str, Any], env: dict[str, str], model_dir: Path
) -> Iterator[dict[str, MemberProcess]]:
    """A chief, workers and one ps that run the demo's program; by names such as "worker0"."""
    roles = [("chief", 0), *(("worker", index) for index in range(workers)), ("ps", 0)]
    with ExitStack() as stack:
        spec: dict[str, list[str]] = {}
        for job_name, _ in roles:
            port = stack.enter_context(reserved_port())
            spec.setdefault(job_name, []).append(f"127.0.0.1:{port}")
        members = {}
        for job_name, index in roles:
            name = f"{job_name}{index}"
            member = MemberProcess(
                directory / name, train_digits, args, preload=("tensorflow",), env=QUIET | env
            )
            members[name] = stack.enter_context(member)
        for member in members.values():
            member.expect("ready")
        for (job_name, index), member in zip(roles, members.values(), strict=True):
            member.send_start(
                job_name=job_name,
                task_index=index,
                cluster_spec=spec,
                grace=5.0,
                model_dir=str(model_dir),
            )
        for member in members.values():
            member.expect("running")
        yield members


def test_a_parameter_server_cluster_learns_the_digits(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    with digits_cluster(tmp_path, 2, {}, {}, model_dir) as members:
        chief = members.pop("chief0")
        events = list(chief.events_until("finished"))
        assert chief.wait(20) == 0
        result = chief.result()
        last = events[-2]
        assert (last["event"], last["step"]) == ("progress", result["steps"])
        assert last["metrics"]["loss"] == pytest.approx(result["loss"])
        assert last["metrics"]["accuracy"] > 0.9
        # The ps after its workers: left to the interpreter's own end it would hang here.
        for member in members.values():
            member.stop()
            assert member.wait(20) == 0
            assert member.outcome().status is Status.RETURNED

    done = subprocess.run(
        [sys.executable, "-m", "examples.digits_data", "keras", str(model_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert float(done.stdout.split()[-1]) >= 0.93


def test_a_proxy_in_the_environment_does_not_come_between_members(tmp_path: Path) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9"}
    with digits_cluster(tmp_path, 1, {"steps": 20}, proxy, tmp_path / "model") as members:
        *_, finished = members["chief0"].events_until("finished")
        assert finished["outcome"]["status"] == "returned"


def test_a_chief_that_loses_its_ps_is_a_bystander(tmp_path: Path) -> None:
    with digits_cluster(tmp_path, 1, {"steps": 10**9}, {}, tmp_path / "model") as members:
        chief = members["chief0"]
        chief.expect("progress")
        os.kill(members["ps0"].pid, signal.SIGKILL)
        *_, finished = chief.events_until("finished")
        assert chief.wait(20) == 1
        assert finished["outcome"]["status"] == "raised"
        assert finished["outcome"]["peer_lost"]
        assert "coordinate" in finished["outcome"]["traceback"]
