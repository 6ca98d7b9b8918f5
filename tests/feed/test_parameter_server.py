"""Workers of ParameterServerStrategy read their own feeds in the chief's graph."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from executor_agent.feed.columns import FeedMismatch
from executor_agent.feed.parameter_server import per_worker_dataset_fn
from tests.feed import ps_program

PROGRAM = Path(__file__).with_name("ps_program.py")
MEMBERS = (("worker", 0), ("worker", 1), ("ps", 0), ("chief", 0))

# TensorFlow listens on the ports that we hold.
ENVIRONMENT = {
    "TF_GRPC_REUSE_PORT": "true",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    """One for each member, held until the test ends."""
    with ExitStack() as stack:
        found = []
        for _ in MEMBERS:
            held = stack.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
            found.append(f"127.0.0.1:{held.getsockname()[1]}")
        yield found


@pytest.mark.tensorflow
@pytest.mark.slow
def test_each_worker_reads_its_own_feed_to_its_own_end(addresses: list[str]) -> None:
    cluster: dict[str, list[str]] = {}
    for (job, _), address in zip(MEMBERS, addresses, strict=True):
        cluster.setdefault(job, []).append(address)
    command = [sys.executable, str(PROGRAM)]
    processes = [
        subprocess.Popen(
            [*command, job, str(index), json.dumps(cluster)],
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE if job == "chief" else subprocess.DEVNULL,
            text=True,
        )
        for job, index in MEMBERS
    ]
    try:
        out, _ = processes[-1].communicate(timeout=200)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[-1].returncode == 0
    found = json.loads(out)

    numbers = [
        100 * worker + n
        for worker, epochs in ps_program.ROWS.items()
        for n in range(sum(map(sum, epochs)))
    ]
    assert found["rows"] == len(numbers)
    assert found["total"] == sum(0.5 if n % 2 else n / 2 for n in numbers)
    assert found["words"] == sum(n % 3 for n in numbers)
    # Worker 0 has epochs of 7 and 2 rows, worker 1 of 5 and none: batches of 2 never cross them.
    assert (found["steps"], found["full"]) == (5 + 3, 4 + 2)
    assert "column 'n': int64 came, string of shape () is asked" in found["error"]


def test_what_cannot_be_meant_is_refused_by_the_chief() -> None:
    with pytest.raises(FeedMismatch, match="column 'x'"):
        per_worker_dataset_fn(2, {"x": 1})
    with pytest.raises(ValueError, match="batch_size is 0"):
        per_worker_dataset_fn(0, {"x": ("float32", ())})
