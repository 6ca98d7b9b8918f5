"""Runs on several hosts, one of which fails again and again: it is avoided while there is another,
and never for ever.

All workers are on this machine. Each has a host name of its own all the same, because its Python
runs in a UTS namespace of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import TFCluster
from coordinator.core.model import Cause
from tests.conftest import LongLived
from tests.spark.application import application
from tests.spark.helpers import eventually
from tests.spark.standalone import StandaloneCluster, standalone_cluster
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    history,
    left_of,
    process_of,
    wait_at_the_gate,
    wait_for_generation,
)

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")

# Spark tells a worker's own address to its executors, and they to their Python.
PYTHON = """\
#!/bin/sh
exec unshare --uts sh -c 'hostname "host-${{SPARK_LOCAL_IP##*.}}" && exec "$0" "$@"' {python} "$@"
"""

KILLED = Cause.KILLED_BY_SIGNAL.value


def has_namespaces() -> bool:
    """Whether this user may give a process a host name of its own."""
    try:
        tried = subprocess.run(
            ["unshare", "--uts", "hostname", "host-0"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not has_namespaces(), reason="needs UTS namespaces: root, and util-linux"),
]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, long_lived: LongLived
) -> Iterator[StandaloneCluster]:
    """Three hosts of one slot each, so that no two members are on the same one."""
    folder = tmp_path_factory.mktemp("standalone")
    with standalone_cluster(folder / "cluster", ADDRESSES, cores=1, memory_mib=1024) as cluster:
        for pid in cluster.pids:
            long_lived.allow_tree(pid)
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Executors run a Python that knows its host by another name."""
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setenv("PYSPARK_PYTHON", str(python))
    return {"spark.executor.memory": "512m", "spark.executor.cores": "1"}


def hosts_of(cluster: TFCluster) -> dict[str, str]:
    """By member, as the coordinator knows them."""
    members = cluster.status().members
    return {str(each.id): each.executor.hostname for each in members if each.executor is not None}


def active_tasks(spark: Any) -> int:
    tracker = spark.sparkContext.statusTracker()
    stages = (tracker.getStageInfo(each) for each in tracker.getActiveStageIds())
    return sum(each.numActiveTasks for each in stages if each is not None)


def fail_twice_on_a_host(spark: Any, folder: Path, timeout: float) -> dict[str, Any]:
    """In the application: a member's process is killed, and killed again where it comes back."""
    with begin(spark, wait_at_the_gate, folder, reservation_timeout=timeout) as cluster:
        hosts = []
        for generation in (1, 2):
            wait_for_generation(cluster, generation)
            hosts.append(hosts_of(cluster))
            process_of(cluster, "worker:0").kill()
        wait_for_generation(cluster, 3, 150.0)
        hosts.append(hosts_of(cluster))
        eventually(lambda: active_tasks(spark) == 2, "the task that nobody needs to end")
        (folder / GATE).touch()
        returned = dict(cluster.wait(60).returned)
        restarts = cluster.status().restarts
    return {
        "returned": returned,
        "hosts": hosts,
        "failed": [each.host for each in restarts],
        "history": history(cluster),
        "left": left_of(cluster),
    }


def test_a_host_where_a_member_failed_twice_is_left_for_another(
    cluster: StandaloneCluster, conf: dict[str, str], tmp_path: Path
) -> None:
    """The task that stands by there is not waited for: another job comes to the third host."""
    with application(cluster.url, conf, executors=3) as driver:
        outcome = driver.start(fail_twice_on_a_host, tmp_path, 90.0).result(250)
    first, second, third = outcome["hosts"]
    assert first == second, "it was not started again in place"
    assert third["worker:1"] == first["worker:1"]
    assert {first["worker:0"], third["worker:0"], first["worker:1"]} == {
        f"host-{address.rpartition('.')[2]}" for address in ADDRESSES
    }
    assert outcome["failed"] == [first["worker:0"]] * 2
    assert outcome["history"] == [("worker:0", KILLED, 1), ("worker:0", KILLED, 2)]
    assert outcome["returned"] == {"worker:0": 3, "worker:1": 3}
    assert outcome["left"] == []


def test_a_host_that_failed_twice_is_taken_again_when_no_other_has_a_slot(
    cluster: StandaloneCluster, conf: dict[str, str], tmp_path: Path
) -> None:
    """After half of the time that the gang has: for nobody else is there."""
    with application(cluster.url, {**conf, "spark.cores.max": "2"}, executors=2) as driver:
        outcome = driver.start(fail_twice_on_a_host, tmp_path, 40.0).result(250)
    first, second, third = outcome["hosts"]
    assert first == second == third
    assert first["worker:0"] != first["worker:1"]
    assert outcome["failed"] == [first["worker:0"]] * 2
    assert outcome["returned"] == {"worker:0": 3, "worker:1": 3}
    assert outcome["left"] == []
