"""A standalone coordinator that is killed in the middle of a restart, and started again on its
journal: the run goes on as if nothing had been."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import CoordinatorUnavailable, TFCluster
from coordinator.core.model import Cause, MemberPhase, RunId, RunPhase, RunView
from tests.integration.daemon.process import Daemon, Home, StartDaemon
from tests.spark.helpers import eventually, marked
from tests.spark.topologies.restarting import (
    GATE,
    begin,
    history,
    left_of,
    process_of,
    spark_worker_of,
    wait_at_the_gate,
    wait_for_generation,
)

pytestmark = pytest.mark.timeout(240)

KILLED = Cause.KILLED_BY_SIGNAL.value
PREEMPTED = Cause.PREEMPTED.value


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartDaemon]:
    """Daemons with the same journal, one after the other."""
    home = Home(tmp_path / "home")
    (tmp_path / "home").mkdir()
    started: list[Daemon] = []

    def start_one(port: int = 0) -> Daemon:
        started.append(Daemon(home, port))
        return started[-1]

    yield start_one
    for daemon in started:
        daemon.close()


def be_the_only_one(args: Any, ctx: Any) -> int:
    """Raises when a process of this member, of whatever generation, still lives. When the first
    generation is told to stop, it does so after there is a file that lets it."""
    name = f"{ctx.job_name}-{ctx.task_index}"
    with Path(args["folder"], f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        generation = wait_at_the_gate(args, ctx)
        if ctx.should_stop and ctx.generation == 1:
            while not Path(args["folder"], "may-stop").exists():
                time.sleep(0.02)
        return generation


def begin_on(daemon: Daemon, spark: Any, folder: Path, **options: Any) -> TFCluster:
    place = {"coordinator": f"grpc://{daemon.address}", "token_file": daemon.home.token_file}
    return begin(spark, be_the_only_one, folder, grace={"worker": 60.0}, **place, **options)


def finish(cluster: TFCluster, folder: Path, blamed: list[tuple[str, str, int]]) -> None:
    """The second generation ends well; it took the restarts that these were the reasons for."""
    wait_for_generation(cluster, 2)
    (folder / GATE).touch()
    result = cluster.wait(60)
    assert result.returned == {"worker:0": 2, "worker:1": 2}
    assert history(cluster) == blamed
    assert cluster.status().restart_count == len(blamed)
    cluster.shutdown()
    assert left_of(cluster) == []


def wait_until_restarting(cluster: TFCluster, dead: str) -> None:
    def is_so() -> bool:
        run = cluster.status()
        ended = {str(each.id) for each in run.members if each.phase is MemberPhase.EXITED}
        return run.phase is RunPhase.RESTARTING and dead in ended

    eventually(is_so, "the restart to begin")


def test_the_daemon_is_killed_while_members_are_stopped(
    spark: Any, tmp_path: Path, start: StartDaemon
) -> None:
    """O13, E2: nobody has decided yet; the one that was killed is blamed by the next daemon."""
    daemon = start()
    with begin_on(daemon, spark, tmp_path) as cluster:
        process_of(cluster, "worker:0").kill()
        wait_until_restarting(cluster, "worker:0")
        daemon.kill()
        assert process_is_there(cluster, "worker:1"), "it was stopped before the daemon was killed"
        start(daemon.port)
        (tmp_path / "may-stop").touch()
        finish(cluster, tmp_path, [("worker:0", KILLED, 1)])


def test_members_that_end_while_the_daemon_is_away_wait_for_the_next_one(
    spark: Any, tmp_path: Path, start: StartDaemon
) -> None:
    """O13: the second has been told to stop, and its next process asks for the slot of somebody
    whose end nobody has heard of yet."""
    daemon = start()
    with begin_on(daemon, spark, tmp_path) as cluster:
        process_of(cluster, "worker:0").kill()
        wait_until_restarting(cluster, "worker:0")
        second = process_of(cluster, "worker:1")
        daemon.kill()
        (tmp_path / "may-stop").touch()
        eventually(lambda: not is_alive(second), "worker:1 to stop")
        start(daemon.port)
        finish(cluster, tmp_path, [("worker:0", KILLED, 1)])


def test_a_member_that_loses_its_spark_task_while_the_daemon_is_away_comes_back(
    spark: Any, tmp_path: Path, start: StartDaemon
) -> None:
    """O1, O13: it was being stopped for another one, so that it costs nothing."""
    daemon = start()
    with begin_on(daemon, spark, tmp_path) as cluster:
        process_of(cluster, "worker:0").kill()
        wait_until_restarting(cluster, "worker:0")
        second, task = process_of(cluster, "worker:1"), spark_worker_of(cluster, "worker:1")
        daemon.kill()
        task.kill()
        (tmp_path / "may-stop").touch()
        eventually(lambda: not is_alive(second), "worker:1 to end")
        start(daemon.port)
        finish(cluster, tmp_path, [("worker:0", KILLED, 1)])


def test_the_daemon_is_killed_while_the_gang_forms_again(
    spark: Any, tmp_path: Path, start: StartDaemon
) -> None:
    """O13, R3: who is ready stays ready, who is not may still come."""
    module = tmp_path / f"held_{tmp_path.parent.name.replace('-', '_')}.py"
    module.write_text(
        "import os, time\n"
        "while '/worker:1/' in os.environ['TFLEASE_MEMBER'] and "
        f"os.path.exists({str(tmp_path / 'hold')!r}):\n"
        "    time.sleep(0.02)\n"
    )
    spark.sparkContext.addPyFile(str(module))
    daemon = start()
    with begin_on(daemon, spark, tmp_path, preload=(module.stem,)) as cluster:
        wait_for_generation(cluster, 1)
        (tmp_path / "hold").touch()
        (tmp_path / "may-stop").touch()
        process_of(cluster, "worker:0").kill()

        def is_half_formed() -> bool:
            run = cluster.status()
            phases = [each.phase for each in run.members]
            return run.phase is RunPhase.FORMING and phases == [
                MemberPhase.READY,
                MemberPhase.RESERVED,
            ]

        eventually(is_half_formed, "one to be ready, and one not yet")
        held = {str(each.id): each.incarnation for each in cluster.status().members}
        daemon.kill()
        start(daemon.port)
        (tmp_path / "hold").unlink()
        wait_for_generation(cluster, 2)
        assert {str(each.id): each.incarnation for each in cluster.status().members} == held
        finish(cluster, tmp_path, [("worker:0", KILLED, 1)])


def test_a_daemon_that_is_killed_again_and_again_loses_no_restart(
    spark: Any, tmp_path: Path, start: StartDaemon
) -> None:
    """O13: twice in each of two restarts, one by a new process and one by a new job; whatever the
    run is just doing then."""
    (tmp_path / "may-stop").touch()
    daemon = start()
    with begin_on(daemon, spark, tmp_path) as cluster:
        for generation, find in ((1, process_of), (2, spark_worker_of)):
            wait_for_generation(cluster, generation)
            find(cluster, "worker:0").kill()
            wait_until(daemon, cluster, lambda run: run.phase is not RunPhase.RUNNING)
            daemon.kill()
            daemon = start(daemon.port)
            wait_until(daemon, cluster, lambda run, so_far=generation: run.restart_count >= so_far)
            daemon.kill()
            daemon = start(daemon.port)
        wait_for_generation(cluster, 3)
        (tmp_path / GATE).touch()
        assert cluster.wait(60).returned == {"worker:0": 3, "worker:1": 3}
        assert history(cluster) == [("worker:0", KILLED, 1), ("worker:0", PREEMPTED, 2)]
    assert left_of(cluster) == []


def wait_until(daemon: Daemon, cluster: TFCluster, is_so: Callable[[RunView], bool]) -> None:
    """The daemon is asked: drivers hear of what is new a moment later."""
    with closing(daemon.client()) as client:

        def is_it() -> bool:
            try:
                return is_so(client.get(RunId(cluster.run_id)))
            except CoordinatorUnavailable:  # a channel that has just failed waits for a moment
                return False

        eventually(is_it, "the restart to go on")


def process_is_there(cluster: TFCluster, member: str) -> bool:
    return any(is_alive(each) for each in marked(cluster.run_id, member))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
