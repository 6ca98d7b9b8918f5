"""Real runs with a standalone coordinator: it was there before them, and is there after them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import Roles, TFCluster, TrainingFailed
from coordinator.core.model import RunId, RunPhase
from tests.coordinator.spark.daemon_process import Daemon
from tests.spark.helpers import marked, wait_until_gone
from tests.spark.program import Program

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path)) as daemon:
        yield daemon


def whoami(args: Any, ctx: Any) -> str:
    return f"{ctx.job_name}:{ctx.task_index} {args}"


def fail(args: Any, ctx: Any) -> None:
    raise ValueError("bad labels")


def run_on(daemon: Daemon, spark: Any, main_fun: Any, args: Any = None, **more: Any) -> TFCluster:
    options: dict[str, Any] = {
        "roles": Roles(worker=2),
        "preload": (),
        "progress": False,
        "reservation_timeout": 120.0,
        "coordinator": daemon.url,
        "token_file": daemon.token_file,
        **more,
    }
    return TFCluster.run(spark, main_fun, args, **options)


def test_runs_of_a_session_share_a_daemon_that_outlives_them(spark: Any, daemon: Daemon) -> None:
    for number in range(2):
        with run_on(daemon, spark, whoami, number) as cluster:
            result = cluster.wait(120)
            assert not any("coordinator.embedded" in each for each in children())
        assert result.returned == {f"worker:{n}": f"worker:{n} {number}" for n in range(2)}
        assert marked(cluster.run_id) == []
    with pytest.raises(TrainingFailed, match="ValueError: bad labels"):
        run_on(daemon, spark, fail).wait(120)
    with closing(daemon.client()) as client:
        phases = [run.phase for run in client.list()]
    assert phases == [RunPhase.SUCCEEDED, RunPhase.SUCCEEDED, RunPhase.FAILED]
    assert daemon.process.poll() is None


def children() -> list[str]:
    found = psutil.Process().children(recursive=True)
    return [" ".join(each.cmdline()) for each in found if each.status() != psutil.STATUS_ZOMBIE]


def test_the_run_of_a_sigkilled_driver_is_cancelled_and_all_of_it_goes(
    daemon: Daemon, tmp_path: Path
) -> None:
    """O13: the daemon sees only that its session has closed."""
    with closing(Program("owner.py", tmp_path, daemon.url, str(daemon.token_file))) as driver:
        run_id = driver.reached("running")
        processes = driver.processes(run_id)
        assert len(marked(run_id)) >= 3
        driver.process.kill()
        driver.process.wait()
        with closing(daemon.client()) as client:
            *_, last = client.watch(RunId(run_id))
        wait_until_gone(processes, "survived the driver")
    assert last.phase in (RunPhase.CANCELLED, RunPhase.FAILED)
    assert daemon.process.poll() is None
