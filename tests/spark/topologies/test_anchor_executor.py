"""`anchor="executor"` on executors of one slot: Spark runs other tasks there while the members
live, and the executor's end, the session's or the run's is the members' end all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster, TrainingFailed
from tests.spark.application import Application, application
from tests.spark.helpers import (
    command,
    eventually,
    marked,
    member_process_of,
    sentinel_of,
    wait_until_gone,
)

MEMBERS = ("worker:0", "worker:1")


@pytest.fixture
def driver() -> Iterator[Application]:
    with application("local-cluster[2,1,1024]", executors=2) as driver:
        yield driver


def everything(run_id: str) -> list[psutil.Process]:
    """Sentinel, agent and process of both members."""
    found = [*marked(run_id), *(sentinel_of(run_id, member) for member in MEMBERS)]
    assert len(found) == 6, found
    return found


def test_other_jobs_use_the_slots_and_their_workers_while_the_members_live(
    driver: Application, tmp_path: Path
) -> None:
    """Neither the next job in the same worker, nor a cancel, nor the worker's death is theirs."""
    workers = driver.call(fill_all_slots, str(tmp_path / "before"))
    run_id = driver.call(begin)
    members = everything(run_id)
    assert driver.call(count, 100) == 100
    assert driver.call(fill_all_slots, str(tmp_path / "after")) == workers, "they are used again"
    driver.call(cancel_all_jobs)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until_gone([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], "workers")
    others = driver.call(fill_all_slots, str(tmp_path / "again"))
    assert not set(others) & set(workers)
    assert driver.call(phases) == ["running", "running"]
    assert {process.pid for process in everything(run_id)} == {process.pid for process in members}
    programs = [member_process_of(run_id, member) for member in MEMBERS]
    driver.call(end)
    assert [process for process in programs if process.is_running()] == []
    wait_until_gone(members, "agents and sentinels leave once they are heard")


def test_a_killed_executor_takes_its_member_with_it_and_fails_the_run(
    driver: Application,
) -> None:
    """O3. The other one's member is stopped by the coordinator, through its agent."""
    run_id = driver.call(begin)
    members = everything(run_id)
    # Until a member is handed over its task is an anchor too, and may be the first seen to go.
    eventually(lambda: not driver.call(active_jobs), "both tasks to return")
    executor_of(driver, driver.call(executor_id, MEMBERS[0])).kill()
    cause, text = driver.call(failure)
    wait_until_gone(members, "survived the executor")
    assert (cause, "executor died" in text) == ("preempted", True), text
    assert MEMBERS[0] in text
    driver.call(end)  # raises when something may be left


def test_stopping_the_session_without_a_shutdown_leaves_nothing(driver: Application) -> None:
    """O13: there is no job left to cancel; it is the executors' end that counts."""
    run_id = driver.call(begin)
    members = everything(run_id)
    driver.call(stop_session)
    wait_until_gone(members, "survived the session")
    assert marked(run_id) == []
    cause, _ = driver.call(failure)
    assert cause == "preempted"
    driver.call(end)


def test_a_worker_that_has_outlived_its_daemon_still_knows_its_executor(
    driver: Application, tmp_path: Path
) -> None:
    """O3. Spark uses it again, though it is nobody's child any more; by its parents alone the next
    member would have no executor to be handed over to, and none to die with."""
    workers = driver.call(fill_all_slots, str(tmp_path / "before"))
    daemons = [psutil.Process(worker).parent() for worker in workers]
    for daemon in daemons:
        assert daemon is not None
        daemon.kill()
    wait_until_gone([daemon for daemon in daemons if daemon is not None], "the daemons")
    assert driver.call(fill_all_slots, str(tmp_path / "again")) == workers
    driver.call(begin)
    assert {driver.call(executor_id, member) for member in MEMBERS} == {"0", "1"}
    driver.call(end)


def executor_of(driver: Application, executor_id: str) -> psutil.Process:
    """The executor's JVM."""

    def found() -> psutil.Process | None:
        wanted = f"--executor-id {executor_id} "
        below = psutil.Process(driver.pid).children(recursive=True)
        return next((each for each in below if wanted in f"{command(each)} "), None)

    return eventually(found, f"executor {executor_id}")


# -- in the application's process ------------------------------------------------------------------

_clusters: list[TFCluster] = []


def wait_for_the_end(args: Any, ctx: Any) -> None:
    ctx.wait_for_stop()


def begin(spark: Any) -> str:
    """On its return the gang has formed."""
    cluster = TFCluster.run(
        spark,
        wait_for_the_end,
        roles=Roles(worker=2),
        anchor="executor",
        preload=(),
        progress=False,
        reservation_timeout=120.0,
    )
    _clusters.append(cluster)
    return cluster.run_id


def phases(spark: Any) -> list[str]:
    return [member.phase.value for member in _clusters[0].status().members]


def executor_id(spark: Any, member: str) -> str:
    members = _clusters[0].status().members
    [executor] = [each.executor for each in members if str(each.id) == member]
    assert executor is not None
    return executor.executor_id


def failure(spark: Any) -> tuple[str, str]:
    with pytest.raises(TrainingFailed) as caught:
        _clusters[0].wait(120)
    assert caught.value.failure is not None
    return caught.value.failure.cause.value, str(caught.value)


def end(spark: Any) -> None:
    _clusters[0].shutdown()


def count(spark: Any, rows: int) -> int:
    return int(spark.range(0, rows, 1, 2).count())


def active_jobs(spark: Any) -> list[int]:
    return list(spark.sparkContext.statusTracker().getActiveJobsIds())


def cancel_all_jobs(spark: Any) -> None:
    spark.sparkContext.cancelAllJobs()


def stop_session(spark: Any) -> None:
    spark.sparkContext._jsc.sc().stop()  # the application's own end still asks the Python side


def fill_all_slots(spark: Any, folder: str) -> list[int]:
    """The Python workers of two tasks that run at the same time, and so on both executors."""
    os.mkdir(folder)

    def meet(batches: Any) -> Any:
        import time

        import pyarrow

        for _ in batches:
            pass
        Path(folder, str(os.getpid())).touch()
        give_up_at = time.monotonic() + 60
        while len(os.listdir(folder)) < 2:
            if time.monotonic() > give_up_at:
                raise TimeoutError("the other task does not run: is its slot taken?")
            time.sleep(0.02)
        yield pyarrow.RecordBatch.from_pydict({"pid": [os.getpid()]})

    rows = spark.range(0, 2, 1, 2).mapInArrow(meet, "pid long").collect()
    return sorted(row.pid for row in rows)
