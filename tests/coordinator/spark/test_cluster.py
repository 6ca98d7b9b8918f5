"""`TFCluster` with a real coordinator process and fake members; only Spark is a stand-in.

Its jobs run fake members on their own threads, over gRPC.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from coordinator import RunCancelled, TFCluster, TrainingFailed
from coordinator.core.errors import CoordinatorUnavailable, ReleaseUnproven
from coordinator.core.model import RunPhase, RunView
from coordinator.spark import coordinator_process
from coordinator.spark import launch as launch_module
from coordinator.spark.coordinator_process import CoordinatorProcess
from coordinator.spark.jobs import MemberJobs
from coordinator.spark.launch import Launch
from coordinator.spark.session import RunSession
from coordinator.testing import Script
from tests.coordinator.spark.fake_members import HANGS, RAISES, SERVES, playing, run
from tests.coordinator.spark.fake_spark import FakeSpark

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CoordinatorProcess]]:
    """Every coordinator that was started; each must be gone in the end, and our threads too."""
    processes: list[CoordinatorProcess] = []
    start = CoordinatorProcess.__init__

    def record(self: CoordinatorProcess, *where: Any) -> None:
        processes.append(self)
        start(self, *where)

    monkeypatch.setattr(CoordinatorProcess, "__init__", record)
    yield processes
    alive = [process for process in processes if process.is_alive]
    for process in alive:
        process.kill()
    assert not alive
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("tflease")]


def test_a_run_from_its_call_to_its_results(started: list[CoordinatorProcess]) -> None:
    views: list[RunView] = []
    with run(FakeSpark(playing(Script())), progress=views.append) as cluster:
        result = cluster.wait(60)
        assert result.returned == {"worker:0": "worker:0", "worker:1": "worker:1"}
        assert cluster.name == result.name == "mnist"
        assert cluster.run_id == result.run_id
    assert cluster.status().phase is RunPhase.SUCCEEDED
    assert views[-1].phase is RunPhase.SUCCEEDED
    assert len(started) == 1


def test_the_first_failure_is_raised_and_the_next_run_just_works() -> None:
    """E2, R6."""
    spark = FakeSpark(playing(RAISES))
    with (
        pytest.raises(TrainingFailed, match="raised ValueError: bad labels"),
        run(spark) as cluster,
    ):
        cluster.wait(60)
    spark = FakeSpark(playing(Script()))
    with run(spark) as cluster:
        cluster.wait(60)


def test_a_stop_from_another_thread_ends_the_wait() -> None:
    with run(FakeSpark(playing(SERVES))) as cluster:
        threading.Thread(target=cluster.stop, args=("enough",)).start()
        with pytest.raises(RunCancelled, match="enough"):
            cluster.wait(60)


def test_a_shutdown_from_another_thread_ends_the_wait() -> None:
    cluster = run(FakeSpark(playing(SERVES)))
    shutting = threading.Thread(target=cluster.shutdown)
    shutting.start()
    with pytest.raises(RunCancelled, match="the cluster was shut down"):
        cluster.wait(60)
    shutting.join(60)
    cluster.shutdown()  # waits for the other one, if need be


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "stop_bound", lambda grace: 3 * (grace + 0.1))
    monkeypatch.setattr(launch_module, "_COORDINATOR_TIMEOUT", 0.1)
    monkeypatch.setattr(launch_module, "JOIN_TIMEOUT", 0.5)
    monkeypatch.setattr(coordinator_process, "_LIFELINE_TIMEOUT", 0.1)


NO_GRACE = {"worker": 0.0, "chief": 0.0, "evaluator": 0.0}


def test_a_member_that_hangs_is_named_every_time_and_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """O12: the wait of another thread used never to end, and a second shutdown to be silent."""
    impatient(monkeypatch)
    cluster = run(FakeSpark(playing(HANGS)), grace=NO_GRACE)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            cluster.wait()
        except BaseException as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    for _ in range(2):
        with pytest.raises(ReleaseUnproven, match="worker:0 on fake-host"):
            cluster.shutdown()
    waiting.join(30)
    assert [type(error) for error in errors] == [CoordinatorUnavailable]
    with pytest.raises(CoordinatorUnavailable, match="shut down before its end was known"):
        cluster.wait()


def test_a_coordinator_that_dies_fails_the_run_at_once(started: list[CoordinatorProcess]) -> None:
    """Durability is the daemon's: its jobs are cancelled, and the reason is told."""
    spark = FakeSpark(playing(HANGS))
    cluster = run(spark)
    started[0].kill()
    with pytest.raises(CoordinatorUnavailable, match="the coordinator of run 'mnist' is gone"):
        cluster.wait(60)
    with pytest.raises(ReleaseUnproven, match="when last heard of"):
        cluster.shutdown()
    assert all(job.cancelled.is_set() for job in spark.jobs)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    [
        "coordinator.spark.launch.RunClient.create",
        "coordinator.spark.launch.RunSession.__init__",
        "coordinator.spark.launch.MemberJobs.__init__",
        "coordinator.spark.options.Options.task",
        "coordinator.spark.launch.Launch.start",
        "coordinator.spark.cluster.TFCluster._wait_until_running",
        "coordinator.spark.cluster.TFCluster._raise_if_over",
        "coordinator.spark.beside.TensorBoard",
    ],
)
def test_ctrl_c_anywhere_in_the_start_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, started: list[CoordinatorProcess], where: str
) -> None:
    """R6, R7: the coordinator is gone, no thread is left, and the next run may form."""
    spark = FakeSpark(playing(SERVES))
    with monkeypatch.context() as patched:
        patched.setattr(where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(spark, tensorboard=True)
    assert len(started) == 1
    assert not started[0].is_alive
    with run(spark, reservation_timeout=60.0):
        pass


@pytest.mark.parametrize("error", [OSError("no disk"), RuntimeError("no threads")])
def test_no_training_ends_for_the_sake_of_tensorboard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("coordinator.spark.beside.TensorBoard", refuse)
    with run(FakeSpark(playing(Script())), tensorboard=True) as cluster:
        cluster.wait(60)
    assert f"TensorBoard did not start: {error!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, name",
    [
        (Launch, "_stop_and_wait"),
        (MemberJobs, "cancel"),
        (MemberJobs, "join"),
        (MemberJobs, "wait_until_idle"),
        (RunSession, "close"),
    ],
)
def test_ctrl_c_anywhere_in_the_shutdown_still_ends_the_coordinator(
    monkeypatch: pytest.MonkeyPatch, started: list[CoordinatorProcess], kind: type, name: str
) -> None:
    """O2: and with it the members, by the lifeline."""
    cluster = run(FakeSpark(playing(SERVES)))
    whole = getattr(kind, name)
    calls: list[str] = []

    def interrupted_once(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    monkeypatch.setattr(kind, name, interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        cluster.shutdown()
    assert not started[0].is_alive
    monkeypatch.undo()
    assert cluster._launch.jobs.join(30)
    cluster._session.close(30)


def test_a_callback_that_shuts_down_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called on the very thread that would have to see the end, so nothing is proven."""
    impatient(monkeypatch)
    clusters: list[TFCluster] = []
    done = threading.Event()

    def show(run: RunView) -> None:
        if clusters and not done.is_set():
            with pytest.raises(ReleaseUnproven):
                clusters[0].shutdown()
            done.set()

    cluster = run(FakeSpark(playing(HANGS)), grace=NO_GRACE, progress=show)
    clusters.append(cluster)
    cluster.stop()
    assert done.wait(60)
    with pytest.raises(ReleaseUnproven):
        cluster.shutdown()
    cluster._session.close(30)


async def test_a_wait_that_is_cancelled_leaves_the_run_running() -> None:
    cluster = await asyncio.to_thread(run, FakeSpark(playing(SERVES)))
    try:
        with pytest.raises(TimeoutError, match="still runs after"):
            await cluster.wait_async(0.01)
        waiting = asyncio.create_task(cluster.wait_async())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert cluster.status().phase is RunPhase.RUNNING
    finally:
        await asyncio.to_thread(cluster.shutdown)


async def test_a_run_can_be_awaited() -> None:
    cluster = await asyncio.to_thread(run, FakeSpark(playing(Script())))
    assert (await cluster.wait_async(60))["worker:0"] == "worker:0"
    await asyncio.to_thread(cluster.shutdown)


def test_a_session_without_a_driver_host_is_served_all_the_same(
    started: list[CoordinatorProcess],
) -> None:
    """R9: then the machine's own name has to do."""
    spark = FakeSpark(playing(Script()), conf={"spark.app.name": "x"})
    with run(spark, bind="127.0.0.1:0") as cluster:
        cluster.wait(60)
    assert started[0].address.startswith("127.0.0.1:")


def test_a_standard_error_that_nobody_reads_holds_up_neither_a_run_nor_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E4: a full pipe."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    ends: list[RunPhase] = []

    def train() -> None:
        with run(FakeSpark(playing(Script())), progress=True, show_logs=True) as cluster:
            cluster.wait(60)
        ends.append(cluster.status().phase)

    with (
        os.fdopen(writer, "w") as stream,
        os.fdopen(reader, "rb"),
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stderr", stream)
        training = threading.Thread(target=train, daemon=True)
        training.start()
        training.join(60)
        assert ends == [RunPhase.SUCCEEDED]
