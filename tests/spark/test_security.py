"""An embedded run speaks mutual TLS without anybody having set it up (R5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster
from coordinator.client import RunClient
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable, PermissionDenied
from coordinator.core.model import RunId, RunSpec
from coordinator.testing import FakeExecutor
from tests.coordinator.certificates import daemon_files
from tests.coordinator.spark.daemon_process import Daemon
from tests.spark.helpers import agent_of, marked

pytestmark = pytest.mark.timeout(300)


def wait_for_the_end(args: Any, ctx: Any) -> None:
    ctx.wait_for_stop()


@pytest.fixture(scope="module")
def cluster(spark: Any) -> Iterator[TFCluster]:
    """A run whose members do nothing, in peace."""
    cluster = TFCluster.run(
        spark, wait_for_the_end, None, roles=Roles(worker=2), preload=(), progress=False
    )
    with cluster:
        yield cluster
        cluster.stop("the tests are over")


def in_clear(process: psutil.Process) -> bytes:
    """What others may learn of a process: its command line, and what its children inherit."""
    found = b""
    for name in ("cmdline", "environ"):
        try:
            found += Path(f"/proc/{process.pid}/{name}").read_bytes()
        except OSError:  # it is gone, and tells nobody anything
            continue
    return found


def test_a_plaintext_client_with_the_right_token_gets_nowhere(cluster: TFCluster) -> None:
    coordinator = cluster._coordinator
    plaintext = RunClient(coordinator.own_address, coordinator.token)
    with closing(plaintext), pytest.raises(CoordinatorUnavailable):
        plaintext.list()
    with closing(RunClient(coordinator.own_address, coordinator.token, coordinator.tls)) as client:
        assert [run.run_id for run in client.list()] == [cluster.run_id]


def test_the_token_in_the_closure_opens_that_run_and_does_not_stop_it(cluster: TFCluster) -> None:
    """Any executor of the application could read it there."""
    coordinator, task = cluster._coordinator, cluster._launch._task
    assert task.tls is not None
    tls = ClientTls.of(task.tls)
    assert coordinator.token not in (task.token, *task.tls.values())
    with closing(RunClient(coordinator.own_address, task.token, tls)) as member:
        with pytest.raises(PermissionDenied):
            member.stop(RunId(cluster.run_id), "by a member")
        with pytest.raises(PermissionDenied):
            member.list()
    with closing(RunClient(coordinator.own_address, coordinator.token, coordinator.tls)) as client:
        other = client.create(RunSpec(Roles(worker=1))).run_id
        with pytest.raises(PermissionDenied, match=cluster.run_id):
            asyncio.run(reserve(coordinator.own_address, task.token, other, tls))
        client.stop(other, "the test is over", 0.0)


async def reserve(address: str, token: str, run_id: RunId, tls: ClientTls) -> None:
    async with FakeExecutor(address, token, run_id, "worker:0", tls=tls) as intruder:
        await intruder.reserve()


def test_tokens_and_keys_are_in_no_command_line_and_no_environment(cluster: TFCluster) -> None:
    coordinator, task = cluster._coordinator, cluster._launch._task
    assert task.tls is not None
    keys = [line for line in task.tls["key"].splitlines() if "PRIVATE KEY" not in line]
    assert len(keys) > 1
    every = marked(cluster.run_id)
    assert agent_of(cluster.run_id, "worker:0") in every
    every += [p for each in every for p in each.parents()]
    every += psutil.Process().children(recursive=True)
    for process in set(every):
        seen = in_clear(process)
        for secret in (coordinator.token, task.token, *keys):
            assert secret.encode() not in seen, process


def whoami(args: Any, ctx: Any) -> str:
    return f"{ctx.job_name}:{ctx.task_index} {args}"


def test_a_daemon_with_tls_takes_the_driver_and_its_members(spark: Any, tmp_path: Path) -> None:
    """The driver's files are nowhere but on its machine: members have what is in them."""
    files = daemon_files(tmp_path)
    with closing(Daemon(tmp_path, files)) as daemon:
        where = {"coordinator": daemon.url, "token_file": daemon.token_file, **files.client}
        with TFCluster.run(
            spark, whoami, "hello", roles=Roles(worker=2), preload=(), progress=False, **where
        ) as cluster:
            result = cluster.wait(120)
    assert result.returned == {"worker:0": "worker:0 hello", "worker:1": "worker:1 hello"}
