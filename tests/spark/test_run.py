"""The library call on real executors, when all goes well."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest

from coordinator import Roles, RunCancelled, TFCluster
from coordinator.core.model import Cause, MemberPhase, RunPhase
from tests.spark.helpers import eventually, marked, member_process_of


def describe_self(args: Any, ctx: Any) -> dict[str, Any]:
    if ctx.job_name == "ps":
        ctx.wait_for_stop()
    return {
        "args": args,
        "job_name": ctx.job_name,
        "task_index": ctx.task_index,
        "cluster_spec": {job: list(tasks) for job, tasks in ctx.cluster_spec.items()},
        "num_workers": ctx.num_workers,
        "is_chief": ctx.is_chief,
        "generation": ctx.generation,
        "tf_config": ctx.tf_config,
        "environ": dict(os.environ),
        "local_dir": ctx.local_dir,
        "local_dir_existed": os.path.isdir(ctx.local_dir),
        "executor_id": ctx.executor_id,
        "pid": os.getpid(),
    }


def wait_for_the_end(args: Any, ctx: Any) -> str:
    ctx.wait_for_stop()
    return "told to stop"


def run(spark: Any, main_fun: Any, args: Any = None, **options: Any) -> TFCluster:
    options.setdefault("preload", ())
    options.setdefault("reservation_timeout", 120.0)
    options.setdefault("progress", False)
    return TFCluster.run(spark, main_fun, args, **options)


def test_every_member_is_told_who_it_is_and_returns_its_value(spark: Any) -> None:
    roles = Roles(chief=1, worker=2, ps=1, evaluator=1)
    with run(
        spark, describe_self, {"x": 5}, roles=roles, completion=("chief", "worker")
    ) as cluster:
        result = cluster.wait(120)
    assert set(result.returned) >= {"chief:0", "worker:0", "worker:1"}
    worker = result["worker:1"]
    assert (worker["job_name"], worker["task_index"]) == ("worker", 1)
    assert worker["args"] == {"x": 5}
    assert worker["num_workers"] == 3  # TensorFlow counts the chief
    assert not worker["is_chief"]
    assert result["chief:0"]["is_chief"]
    assert worker["generation"] == 1
    assert worker["executor_id"] in {"0", "1"}
    spec = worker["cluster_spec"]
    assert {job: len(tasks) for job, tasks in spec.items()} == {
        "chief": 1,
        "worker": 2,
        "ps": 1,
        "evaluator": 1,
    }
    assert result["chief:0"]["cluster_spec"] == spec
    addresses = [address for tasks in spec.values() for address in tasks]
    assert len(set(addresses)) == 5
    assert worker["tf_config"]["task"] == {"type": "worker", "index": 1}
    assert len({value["pid"] for value in result.returned.values()}) == len(result.returned)


def test_the_inherited_environment_is_cleaned_and_completed(spark: Any) -> None:
    with run(spark, describe_self, roles=Roles(worker=1), env={"MY_SETTING": "1"}) as cluster:
        value = cluster.wait(120)["worker:0"]
    environ = value["environ"]
    assert "PYTHON_WORKER_FACTORY_SECRET" not in environ
    assert environ["MY_SETTING"] == "1"
    assert environ["TF_GRPC_REUSE_PORT"] == "true"
    assert environ["OMP_NUM_THREADS"] == "1"  # the task's cores
    assert all(os.path.isabs(entry) for entry in environ["PYTHONPATH"].split(os.pathsep))


def test_the_scratch_directory_is_removed_at_the_end(spark: Any) -> None:
    with run(spark, describe_self, roles=Roles(worker=1)) as cluster:
        value = cluster.wait(120)["worker:0"]
    assert value["local_dir_existed"]
    assert not os.path.exists(value["local_dir"])


def test_a_module_shipped_with_addPyFile_is_found_by_the_member(spark: Any, tmp_path: Path) -> None:
    module = tmp_path / "shipped_with_spark.py"
    module.write_text("ANSWER = 42\n")
    spark.sparkContext.addPyFile(str(module))

    def use_it(args: Any, ctx: Any) -> int:
        import shipped_with_spark

        return int(shipped_with_spark.ANSWER)

    with run(spark, use_it, roles=Roles(worker=1)) as cluster:
        assert cluster.wait(120)["worker:0"] == 42


def test_the_token_is_in_no_command_line_and_no_environment(spark: Any) -> None:
    with run(spark, wait_for_the_end, roles=Roles(worker=1)) as cluster:
        token = cluster._coordinator.token  # nobody else knows it
        processes = [psutil.Process(cluster._coordinator.pid), *marked(cluster.run_id)]
        assert len(processes) == 3  # coordinator, agent, member
        for process in processes:
            assert token not in " ".join(process.cmdline())
            assert token not in str(process.environ())


def test_the_next_run_in_the_same_session_just_works(spark: Any) -> None:
    """R6: one failed run must not poison the process."""

    def fail(args: Any, ctx: Any) -> None:
        raise RuntimeError("on purpose")

    for _ in range(2):
        with (
            pytest.raises(Exception, match="on purpose"),
            run(spark, fail, roles=Roles(worker=2)) as cluster,
        ):
            cluster.wait(120)
        with run(spark, describe_self, {"again": 1}, roles=Roles(worker=2)) as cluster:
            assert cluster.wait(120)["worker:1"]["args"] == {"again": 1}


def test_a_run_leaves_signals_threads_and_the_session_as_they_were(spark: Any) -> None:
    """R7: no SIGALRM, no handler, no exit in the user's process."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    alarm = signal.getitimer(signal.ITIMER_REAL)
    with run(spark, describe_self, roles=Roles(worker=1)) as cluster:
        cluster.wait(120)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert signal.getitimer(signal.ITIMER_REAL) <= alarm  # the test runner's own runs down
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith("tflease")}
    assert spark.range(3).count() == 3


def test_parameter_servers_and_evaluators_are_gone_when_shutdown_returns(spark: Any) -> None:
    """O2: a clean shutdown must not leave the ps running."""

    def serve(args: Any, ctx: Any) -> None:
        if ctx.job_name in ("ps", "evaluator"):
            ctx.wait_for_stop()

    cluster = run(spark, serve, roles=Roles(chief=1, worker=1, ps=1, evaluator=1))
    try:
        cluster.wait(120)
    finally:
        cluster.shutdown()
    assert marked(cluster.run_id) == []
    assert not psutil.pid_exists(cluster._coordinator.pid)
    assert cluster.status().phase is RunPhase.SUCCEEDED


def test_a_stopped_run_tells_its_members_and_says_who_stopped_it(spark: Any) -> None:
    with run(spark, wait_for_the_end, roles=Roles(worker=2)) as cluster:
        cluster.stop("enough of it")
        with pytest.raises(RunCancelled, match="enough of it"):
            cluster.wait(120)
    phases = {member.phase for member in cluster.status().members}
    causes = {member.exit.cause for member in cluster.status().members if member.exit}
    assert phases == {MemberPhase.EXITED}
    assert causes == {Cause.COMPLETED}  # they listened to ctx.should_stop


def test_a_wait_that_times_out_leaves_the_run_running(spark: Any) -> None:
    with run(spark, wait_for_the_end, roles=Roles(worker=1)) as cluster:
        with pytest.raises(TimeoutError, match="still runs"):
            cluster.wait(0.1)
        assert member_process_of(cluster.run_id, "worker:0").is_running()


def test_shutdown_twice_is_once(spark: Any) -> None:
    cluster = run(spark, wait_for_the_end, roles=Roles(worker=1))
    cluster.shutdown()
    cluster.shutdown()
    assert cluster.status().phase is RunPhase.CANCELLED


def test_a_run_can_be_awaited(spark: Any) -> None:
    with run(spark, describe_self, {"x": 1}, roles=Roles(worker=1)) as cluster:
        result = asyncio.run(cluster.wait_async(120))
    assert result["worker:0"]["args"] == {"x": 1}


def test_progress_reports_reach_the_driver(spark: Any) -> None:
    def count(args: Any, ctx: Any) -> None:
        ctx.report_progress(7, loss=0.25)
        ctx.wait_for_stop()

    seen: list[int] = []
    with run(
        spark, count, roles=Roles(worker=1), progress=lambda run: seen.append(run.revision)
    ) as cluster:
        eventually(lambda: cluster.status().members[0].step == 7, "the reported step")
        assert cluster.status().members[0].metrics == {"loss": 0.25}
    assert seen == sorted(seen)
    assert seen


def test_a_spark_context_will_do(spark: Any) -> None:
    with run(spark.sparkContext, describe_self, roles=Roles(worker=1)) as cluster:
        assert cluster.wait(120)["worker:0"]["job_name"] == "worker"


def test_what_a_member_prints_is_in_its_executors_stderr_with_its_name(spark: Any) -> None:
    """E3: where the guide says to look; and in a file of its own."""

    def speak(args: Any, ctx: Any) -> None:
        print("nothing rhymes with orange")

    with run(spark, speak, roles=Roles(worker=1)) as cluster:
        cluster.wait(120)
        executor = cluster.status().members[0].executor
    assert executor is not None
    log = Path(executor.directory, "member.log").read_text()
    first, *rest = log.splitlines()
    assert f"[{cluster.run_id}/worker:0/" in first
    assert rest == ["nothing rhymes with orange"]
    work = Path(pyspark.__file__).parent / "work" / spark.sparkContext.applicationId
    expected = "[worker:0] nothing rhymes with orange"
    eventually(
        lambda: any(expected in path.read_text() for path in work.glob("*/stderr")),
        "the member's line in an executor's stderr",
    )
