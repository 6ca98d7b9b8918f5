"""Two workers on two addresses, which are two hosts to Spark: retries elsewhere, speculation,
executors that come and go."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster
from coordinator.core.model import RunView
from tests.conftest import LongLived
from tests.spark.application import CALL_TIMEOUT, Application, application, executors_of
from tests.spark.helpers import (
    agent_of,
    command,
    eventually,
    marked,
    spark_worker_of,
    wait_until_gone,
)
from tests.spark.standalone import StandaloneCluster, standalone_cluster
from tests.spark.topologies.scenario import executor_host, picture_of, train, whereabouts

HOSTS = ("127.0.0.1", "127.0.0.2")

SMALL = {"spark.executor.memory": "512m"}

TWO_EXECUTORS = {"spark.executor.cores": "2", "spark.cores.max": "4"}
"""One on each worker, as the master spreads them."""

ELSEWHERE = {
    "spark.excludeOnFailure.task.maxTaskAttemptsPerExecutor": "1",
    "spark.excludeOnFailure.task.maxTaskAttemptsPerNode": "1",
    "spark.excludeOnFailure.enabled": "true",
}
"""A task that failed on one host is retried on another."""

SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    # Without it a stage of one task, such as a member's, is never speculated on.
    "spark.speculation.task.duration.threshold": "3s",
}

COMING_AND_GOING = {
    "spark.executor.cores": "1",
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "0",
    "spark.dynamicAllocation.maxExecutors": "3",
    "spark.dynamicAllocation.executorIdleTimeout": "3s",
}


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, long_lived: LongLived
) -> Iterator[StandaloneCluster]:
    folder = tmp_path_factory.mktemp("standalone")
    with standalone_cluster(folder / "cluster", HOSTS, cores=4) as cluster:
        for pid in cluster.pids:
            long_lived.allow_tree(pid)
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def driver(cluster: StandaloneCluster, long_lived: LongLived) -> Iterator[Application]:
    """An application with an executor of two slots on each worker."""
    with application(cluster.url, {**SMALL, **TWO_EXECUTORS, **ELSEWHERE}, executors=2) as driver:
        long_lived.allow_tree(driver.pid)
        yield driver


# -- members on two hosts --------------------------------------------------------------------------


def pass_a_word_round(args: Any, ctx: Any) -> dict[str, Any]:
    """Every member listens where it is said to be, and tells the next one its name."""
    members = ctx.cluster_spec["worker"]
    own_port = int(members[ctx.task_index].rpartition(":")[2])
    host, _, port = members[(ctx.task_index + 1) % len(members)].rpartition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the agent holds it
        listener.bind(("0.0.0.0", own_port))
        listener.listen()
        listener.settimeout(30)
        deadline = time.monotonic() + 30
        while True:
            try:
                next_one = socket.create_connection((host, int(port)), timeout=30)
                break
            except ConnectionRefusedError:  # it does not listen yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        with next_one:
            next_one.sendall(f"worker:{ctx.task_index}".encode())
        accepted, _ = listener.accept()
        with accepted:
            heard = accepted.recv(100).decode()
    return {**whereabouts(ctx), "heard": heard, "host": executor_host(os.getpid())}


def test_members_on_two_hosts_reach_each_other_where_they_are_said_to_be(
    driver: Application,
) -> None:
    """R8, R9, R11: two executors of two slots, four members, each at an address of its own."""
    outcome = driver.call(train, pass_a_word_round, None, Roles(worker=4))
    members = [outcome["returned"][f"worker:{index}"] for index in range(4)]
    assert [member["heard"] for member in members] == [f"worker:{(i - 1) % 4}" for i in range(4)]
    assert sorted(member["host"] for member in members) == [HOSTS[0]] * 2 + [HOSTS[1]] * 2
    assert len({member["address"] for member in members}) == 4
    # Where they reach the driver from, which is not what Spark calls the worker's host.
    assert {member["address"].rpartition(":")[0] for member in members} == {"127.0.0.1"}
    assert outcome["left"] == []


# -- a retry ---------------------------------------------------------------------------------------


def tell(args: Any, ctx: Any) -> dict[str, Any]:
    return {**whereabouts(ctx), "spec": {job: len(each) for job, each in ctx.cluster_spec.items()}}


def train_held_back(spark: Any, notes: Path, gate: Path) -> dict[str, Any]:
    """Two workers, of which the second does not get ready before the gate is there."""
    module = gate.with_name("held_back.py")
    module.write_text(
        "import os, time\n"
        "while '/worker:1/' in os.environ['TFLEASE_MEMBER'] and "
        f"not os.path.exists({str(gate)!r}):\n"
        "    time.sleep(0.05)\n"
    )
    spark.sparkContext.addPyFile(str(module))
    return train(spark, tell, None, Roles(worker=2), notes, preload=("held_back",))


def test_a_task_killed_while_the_gang_forms_is_retried_on_another_host_in_the_same_slot(
    driver: Application, tmp_path: Path
) -> None:
    """R3: it does not count as another member, wherever Spark has put it."""
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    training = driver.start(train_held_back, notes, gate)

    def ready() -> tuple[str, str] | None:
        picture = latest(notes, training)
        phase, incarnation = picture["members"]["worker:0"] if picture else ("", "")
        return (picture["run_id"], incarnation) if phase == "ready" else None

    run_id, first = eventually(ready, "worker:0 to be ready")
    first_host = executor_host(agent_of(run_id, f"worker:0/{first}").pid)
    spark_worker_of(run_id, f"worker:0/{first}").kill()
    _, second = eventually(
        lambda: (now := ready()) and now[1] != first and now, "another attempt to be ready"
    )
    second_host = executor_host(agent_of(run_id, f"worker:0/{second}").pid)
    assert {first_host, second_host} == set(HOSTS)
    gate.touch()
    outcome = training.result(CALL_TIMEOUT)
    assert set(outcome["returned"]) == {"worker:0", "worker:1"}
    assert outcome["returned"]["worker:1"]["spec"] == {"worker": 2}
    assert outcome["returned"]["worker:0"]["marker"] == f"{run_id}/worker:0/{second}"
    assert {holder for member, holder in outcome["holders"] if member == "worker:0"} == {
        first,
        second,
    }
    assert outcome["left"] == []


def latest(notes: Path, training: Future[Any]) -> Any:
    """The latest picture of a run; None before the first. Raises what the run raised."""
    if training.done():
        training.result()
    return json.loads(notes.read_text()) if notes.exists() else None


# -- speculation -----------------------------------------------------------------------------------


def hold(args: Any, ctx: Any) -> dict[str, Any]:
    """Runs until it is let go; says at once who it is."""
    found = {**whereabouts(ctx), "host": executor_host(os.getpid())}
    draft = Path(args["folder"], f"{found['pid']}.new")
    draft.write_text(json.dumps(found))
    draft.rename(Path(args["folder"], "entered", str(found["pid"])))
    while not Path(args["folder"], "gate").exists():
        time.sleep(0.05)
    return found


def test_a_speculative_attempt_stands_by_and_the_first_goes_on_to_its_end(
    cluster: StandaloneCluster, tmp_path: Path
) -> None:
    """R4: Spark takes a member that runs for long for a straggler, and starts it once more."""
    one_slot_each = {"spark.executor.cores": "1", "spark.cores.max": "2"}
    with application(cluster.url, {**SMALL, **one_slot_each, **SPECULATION}, executors=2) as driver:
        _speculate(driver, tmp_path)


def _speculate(driver: Application, folder: Path) -> None:
    entered = folder / "entered"
    entered.mkdir()
    training = driver.start(train, hold, {"folder": str(folder)}, Roles(worker=1))

    def first_said() -> Any:
        if training.done():
            training.result()
        return [json.loads(path.read_text()) for path in entered.iterdir()]

    (first,) = eventually(first_said, "the member to enter main_fun")
    process = psutil.Process(first["pid"])
    run_id, _, incarnation = first["marker"].split("/")

    def speculative_agent() -> psutil.Process | None:
        agents = [p for p in marked(run_id) if "executor_agent.agent" in command(p)]
        others = [p for p in agents if not _is_of(p, first["marker"])]
        return others[0] if others and _is_connected(others[0]) else None

    agent = eventually(speculative_agent, "an agent of a speculative attempt to be connected")
    assert {executor_host(agent.pid), first["host"]} == set(HOSTS)
    assert process.is_running()
    processes = marked(run_id)
    (folder / "gate").touch()
    outcome = training.result(CALL_TIMEOUT)
    assert outcome["returned"] == {"worker:0": first}
    assert outcome["holders"] == [("worker:0", incarnation)]
    assert len(list(entered.iterdir())) == 1  # the other one never entered main_fun
    wait_until_gone(processes, "survived the end of the run")


def _is_of(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get("TFLEASE_MEMBER", "") == marker
    except psutil.Error:
        return True  # it is gone: none of the others


def _is_connected(process: psutil.Process) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_ESTABLISHED for each in connections)


# -- executors that come and go --------------------------------------------------------------------


def wait_for_the_end(args: Any, ctx: Any) -> str:
    ctx.wait_for_stop()
    return str(ctx.executor_id)


def train_as_executors_come_and_go(spark: Any) -> dict[str, Any]:
    """What it saw: see the test."""

    def executors() -> int:
        return executors_of(spark)

    before = executors()
    pictures: list[RunView] = []
    with TFCluster.run(
        spark, wait_for_the_end, roles=Roles(worker=2), preload=(), progress=pictures.append
    ) as cluster:
        formed = picture_of(cluster.status())
        # All slots are busy with members, so this brings a third executor.
        spark.sparkContext.parallelize([1], 1).count()
        most = executors()
        # When that one goes, the members have been there for longer than an idle one may be.
        eventually(lambda: executors() < most, "the idle executor to be removed")
        later = picture_of(cluster.status())
        during = executors()
        places = {member.executor.executor_id for member in cluster.status().members}
    eventually(lambda: executors() == 0, "all executors to be removed after the run")
    return {
        "executors": (before, most, during),
        "formed": formed,
        "later": later,
        "places": places,
        "waited_for_slots": any("not scheduled" in str(run.diagnosis) for run in pictures),
    }


def test_with_dynamic_allocation_executors_come_for_the_gang_stay_and_go_after_it(
    cluster: StandaloneCluster,
) -> None:
    """R12: a member holds its executor by running in it, however idle the member looks."""
    with application(cluster.url, {**SMALL, **COMING_AND_GOING}) as driver:
        saw = driver.call(train_as_executors_come_and_go)
    assert saw["executors"] == (0, 3, 2)
    assert saw["later"] == saw["formed"]
    assert {phase for phase, _ in saw["later"]["members"].values()} == {"running"}
    assert len(saw["places"]) == 2
    assert saw["waited_for_slots"]
