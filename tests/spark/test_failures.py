"""E1: whatever ends a member's process, the driver is told at once, with the cause."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from coordinator import PayloadNotPicklable, ReleaseUnproven, Roles, TFCluster, TrainingFailed
from coordinator.core.model import Cause, Failure
from tests.spark.helpers import marked, sentinel_of, wait_until_gone


def failure_of(spark: Any, main_fun: Any, args: Any = None, **options: Any) -> Failure:
    """Runs what must fail; the failure. Nothing of the run may be left."""
    options = {"roles": Roles(worker=1), "preload": (), "progress": False, **options}
    with (
        pytest.raises(TrainingFailed) as caught,
        TFCluster.run(spark, main_fun, args, reservation_timeout=120.0, **options) as cluster,
    ):
        cluster.wait(120)
    assert caught.value.failure is not None
    print(caught.value)  # for whoever looks at a failed test
    if caught.value.failure.exit is not None:
        assert caught.value.failure.exit.survivors == ()
    return caught.value.failure


def test_an_exception_arrives_with_its_traceback_and_the_log(spark: Any) -> None:
    def fail(args: Any, ctx: Any) -> None:
        print("the last thing it said")
        raise ValueError("the labels are upside down")

    failure = failure_of(spark, fail)
    assert failure.cause is Cause.USER_EXCEPTION
    assert "worker:0" in failure.summary
    assert "the labels are upside down" in failure.summary
    assert failure.exit is not None
    assert failure.exit.exception_type == "ValueError"
    assert 'raise ValueError("the labels are upside down")' in failure.exit.traceback
    assert "the last thing it said" in failure.exit.log_tail


def test_a_killed_process_is_seen_with_its_signal(spark: Any) -> None:
    def kill_itself(args: Any, ctx: Any) -> None:
        os.kill(os.getpid(), 9)

    failure = failure_of(spark, kill_itself)
    assert failure.cause is Cause.KILLED_BY_SIGNAL
    assert failure.exit is not None
    assert failure.exit.signal == 9
    assert not failure.exit.killed_by_us


def test_a_crash_in_native_code_is_seen_with_its_stack(spark: Any) -> None:
    def crash(args: Any, ctx: Any) -> None:
        import ctypes

        ctypes.string_at(0)

    failure = failure_of(spark, crash)
    assert failure.cause is Cause.KILLED_BY_SIGNAL
    assert failure.exit is not None
    assert failure.exit.signal == 11
    assert "Segmentation fault" in failure.exit.log_tail
    assert "in crash" in failure.exit.log_tail


def test_sys_exit_is_seen_with_its_code(spark: Any) -> None:
    def leave(args: Any, ctx: Any) -> None:
        raise SystemExit(3)

    failure = failure_of(spark, leave)
    assert failure.cause is Cause.EXIT_CODE
    assert failure.exit is not None
    assert failure.exit.exit_code == 3


def test_a_process_that_leaves_by_the_back_door_has_not_succeeded(spark: Any) -> None:
    def leave(args: Any, ctx: Any) -> None:
        os._exit(0)

    failure = failure_of(spark, leave)
    assert failure.cause is Cause.EXIT_CODE
    assert "os._exit" in failure.summary


def test_the_first_failure_is_raised_and_the_others_are_attached(spark: Any) -> None:
    def fail_in_order(args: Any, ctx: Any) -> None:
        if ctx.task_index == 0:
            raise ValueError("the culprit")
        ctx.wait_for_stop()
        raise RuntimeError("only because it was told to stop")

    failure = failure_of(spark, fail_in_order, roles=Roles(worker=2))
    assert failure.exit is not None
    assert failure.exit.exception_type == "ValueError"
    assert any("only because" in other for other in failure.others)


def test_a_missing_module_is_named_with_the_interpreter_and_what_to_install(spark: Any) -> None:
    """TensorFlow missing on executors, in the shape that needs no second environment."""
    failure = failure_of(spark, print, preload=("tensorflow_that_is_not_there",))
    assert failure.cause is Cause.PRELOAD_FAILED
    assert "tensorflow_that_is_not_there" in failure.summary
    assert "pip install" in failure.summary
    assert failure.exit is not None


def test_a_function_that_executors_cannot_unpickle_says_so(spark: Any) -> None:
    class Explosive:
        def __reduce__(self) -> Any:
            return (__import__, ("a_module_of_the_driver_alone",))

    failure = failure_of(spark, print, {"model": Explosive()})
    assert failure.cause is Cause.PAYLOAD_FAILED
    assert "a_module_of_the_driver_alone" in failure.summary
    assert "addPyFile" in failure.summary


def test_what_cannot_be_pickled_is_named_before_anything_is_started(spark: Any) -> None:
    lock = threading.Lock()

    def use_the_lock(args: Any, ctx: Any) -> None:
        lock.acquire()

    with pytest.raises(PayloadNotPicklable, match=r"'lock' that main_fun uses \(_thread.lock\)"):
        TFCluster.run(spark, use_the_lock, roles=Roles(worker=1), preload=(), progress=False)
    with pytest.raises(PayloadNotPicklable, match=r"args\['lock'\]"):
        TFCluster.run(spark, print, {"x": 1, "lock": lock}, roles=Roles(worker=1), progress=False)


def test_a_dead_coordinator_ends_the_run_at_once(spark: Any) -> None:
    from coordinator import CoordinatorUnavailable

    def wait(args: Any, ctx: Any) -> None:
        ctx.wait_for_stop()

    cluster = TFCluster.run(
        spark, wait, roles=Roles(worker=1), preload=(), progress=False, grace={"worker": 0.0}
    )
    processes = [sentinel_of(cluster.run_id, "worker:0"), *marked(cluster.run_id)]
    try:
        os.kill(cluster._coordinator.pid, 9)
        with pytest.raises(CoordinatorUnavailable, match="is gone"):
            cluster.wait(120)
    finally:
        with pytest.raises(ReleaseUnproven, match="worker:0"):  # nobody can prove it any more
            cluster.shutdown()
    wait_until_gone(processes, "survived the coordinator, though Spark cancelled their task")
