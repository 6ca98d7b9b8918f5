"""Parameter servers that see other disks than the chief: their variables are saved all the same."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DEADLINE = 240.0

# Every process has a working directory of its own: one relative path is a place in each of them.
SERVER = """
import json, sys
import tensorflow as tf
spec = tf.train.ClusterSpec(json.loads(sys.argv[1]))
server = tf.distribute.Server(spec, job_name=sys.argv[2], task_index=0, protocol="grpc")
print("serves", flush=True)
server.join()
"""

CHIEF = """
import contextlib, json, sys
import tensorflow as tf
from examples.digits_training import coordinate


class Member:
    cluster_spec = json.loads(sys.argv[1])
    checkpoint_dir = "checkpoints"
    local_dir = "."
    should_stop = False

    def latest_checkpoint(self):
        return tf.train.latest_checkpoint(self.checkpoint_dir)

    def parameter_server_cluster_resolver(self):
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(self.cluster_spec),
            task_type="chief",
            task_id=0,
            rpc_layer="grpc",
        )

    def report_progress(self, step, **metrics):
        pass

    def section(self, name):
        return contextlib.nullcontext()

    def upload(self, path):
        return str(path)


found = coordinate({"steps": int(sys.argv[2])}, Member())
print(json.dumps([found["began_at"], found["steps"]]), flush=True)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_first_example_saves_and_restores_what_parameter_servers_have(tmp_path: Path) -> None:
    jobs = ("chief", "worker", "ps")
    spec = json.dumps({job: [f"127.0.0.1:{free_port()}"] for job in jobs})
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    for job in jobs:
        (tmp_path / job / "checkpoints").mkdir(parents=True)

    def python(code: str, job: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, spec, *arguments],
            cwd=tmp_path / job,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    with ExitStack() as stack:
        servers = [stack.enter_context(python(SERVER, job, job)) for job in jobs[1:]]
        for server in servers:
            stack.callback(server.kill)
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline() == "serves\n"
        for began_at, steps in ((0, 200), (200, 220)):
            chief = stack.enter_context(python(CHIEF, "chief", str(steps)))
            stack.callback(chief.kill)
            said, _ = chief.communicate(timeout=DEADLINE)
            assert chief.returncode == 0
            assert json.loads(said.splitlines()[-1]) == [began_at, steps]
    assert list((tmp_path / "chief" / "checkpoints").glob("ckpt-200.data-*"))
    assert not list((tmp_path / "ps" / "checkpoints").iterdir())
