"""R1, R2: a gang that cannot form says why, and gives everything back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator import (
    InvalidRun,
    NotEnoughSlots,
    ReservationTimeout,
    Roles,
    SparkUnusable,
    TFCluster,
    TrainingFailed,
)
from coordinator.core.model import MemberPhase, RunView
from tests.spark.helpers import eventually, marked, spark_worker_of


def quick(args: Any, ctx: Any) -> str:
    return "done"


def run(spark: Any, **options: Any) -> TFCluster:
    options = {"preload": (), "progress": False, "reservation_timeout": 120.0, **options}
    return TFCluster.run(spark, quick, **options)


@contextmanager
def busy_slots(spark: Any, count: int, gate: Path) -> Iterator[None]:
    """Other work of the same application holds so many slots until the gate appears."""
    context = spark.sparkContext
    started = gate.parent / "started"
    started.mkdir()

    def hold(partitions: Iterator[int]) -> Iterator[int]:
        import time

        for partition in partitions:
            (started / str(partition)).touch()
            while not gate.exists():
                time.sleep(0.05)
            yield partition

    def work() -> None:
        context.parallelize(range(count), count).mapPartitions(hold).collect()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: len(list(started.iterdir())) == count, "other work to be running")
        yield
    finally:
        gate.touch()
        thread.join()


def test_a_run_that_spark_can_never_seat_fails_at_once_with_the_numbers(
    spark: Any, slots: int
) -> None:
    """R1."""
    with pytest.raises(NotEnoughSlots) as caught:
        run(spark, roles=Roles(chief=1, worker=slots))
    text = str(caught.value)
    assert f"needs {slots + 1} task slots" in text
    assert f"the application has {slots}" in text
    assert "spark.executor.cores" in text


def test_a_missing_member_is_named_with_the_reason_at_the_deadline(
    spark: Any, slots: int, gate: Path
) -> None:
    """R1: who is missing and why; R2: afterwards all slots are given back."""
    pictures: list[RunView] = []
    with busy_slots(spark, slots - 1, gate):
        with pytest.raises(ReservationTimeout) as caught:
            run(spark, roles=Roles(worker=2), reservation_timeout=12, progress=pictures.append)
        assert "task not scheduled" in str(caught.value)
        assert f"{slots} of {slots} slots busy" in str(caught.value)
        assert marked(str(pictures[-1].run_id)) == []
    assert run_everywhere(spark, slots) == slots


def run_everywhere(spark: Any, slots: int) -> int:
    """Counts on all slots at once: it would hang if one were still held."""
    return int(spark.sparkContext.parallelize(range(slots), slots).count())


def test_a_member_whose_task_was_killed_while_the_gang_forms_is_replaced(
    spark: Any, slots: int, gate: Path
) -> None:
    """R3: the retried task is a new incarnation of the same slot, and the gang forms."""
    pictures: list[RunView] = []
    done: list[Any] = []

    def train() -> None:
        with run(spark, roles=Roles(worker=2), progress=pictures.append) as cluster:
            done.append(cluster.wait(120))

    def ready() -> list[Any]:
        members = pictures[-1].members if pictures else ()
        return [member for member in members if member.phase is MemberPhase.READY]

    thread = threading.Thread(target=train)
    with busy_slots(spark, slots - 1, gate):
        thread.start()
        eventually(ready, "one member to be ready")
        first = ready()[0]
        spark_worker_of(str(pictures[-1].run_id), str(first.id)).kill()
        eventually(
            lambda: any(m.incarnation != first.incarnation for m in ready()),
            "another incarnation to be ready",
        )
    thread.join()
    assert done[0].returned == {"worker:0": "done", "worker:1": "done"}


def test_two_runs_of_one_session_form_one_after_the_other(
    spark: Any, slots: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two half-formed gangs would hold each other's slots for ever."""
    results: list[Any] = []

    def train() -> None:
        with run(spark, roles=Roles(worker=slots - 1), progress=True) as cluster:
            results.append(cluster.wait(120))

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(result.returned) for result in results] == [slots - 1] * 2
    assert "waiting for another run of this session to form" in capsys.readouterr().err


def test_the_wrong_python_on_executors_is_explained(spark: Any) -> None:
    context = spark.sparkContext
    right = context.pythonExec
    context.pythonExec = "/usr/bin/python3"  # what executors run when nobody says otherwise
    if right == context.pythonExec:
        pytest.skip("the tests themselves run on the system's Python")
    try:
        with pytest.raises(TrainingFailed, match="PYSPARK_PYTHON"):
            run(spark, roles=Roles(worker=1))
    finally:
        context.pythonExec = right


def test_a_stopped_session_is_refused(spark: Any) -> None:
    class Stopped:
        """What a stopped SparkContext looks like; stopping the shared one would end the tests."""

    from pyspark import SparkContext

    stopped = object.__new__(SparkContext)
    stopped._jsc = None
    with pytest.raises(SparkUnusable, match="has been stopped"):
        run(stopped, roles=Roles(worker=1))
    with pytest.raises(SparkUnusable, match="expected a SparkSession"):
        run("local[4]", roles=Roles(worker=1))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"roles": Roles()}, InvalidRun, "no members"),
        ({"roles": {"worker": -1}}, InvalidRun, "less than 0"),
        ({"roles": {"master": 1}}, InvalidRun, "unknown role 'master'"),
        ({"roles": {"ps": 2}}, InvalidRun, "nobody trains"),
        ({"roles": {"chief": 2}}, InvalidRun, "one chief"),
        ({"roles": {"worker": "2"}}, InvalidRun, "must be an int"),
        ({"roles": Roles(worker=1), "gpus": {"ps": 1}}, InvalidRun, "gpus names ps"),
        ({"roles": Roles(worker=1), "input_mode": "spark"}, InvalidRun, "an InputMode"),
        ({"roles": Roles(worker=1), "grace": {"boss": 1}}, InvalidRun, "unknown role 'boss'"),
        ({"roles": Roles(worker=1), "grace": {"worker": 1e9}}, InvalidRun, "not in 0"),
        ({"roles": Roles(worker=1), "completion": ("ps",)}, InvalidRun, "no members"),
        ({"roles": Roles(worker=1), "preload": "tensorflow"}, InvalidRun, "preload"),
        ({"roles": Roles(worker=1), "env": {"A": 1}}, InvalidRun, "env"),
        ({"roles": Roles(worker=1), "bind": "7077"}, InvalidRun, "host:port"),
        ({"roles": Roles(worker=1), "reservation_timeout": 0}, InvalidRun, "number of seconds"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_started(
    spark: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        run(spark, **options)


def test_a_function_of_the_wrong_shape_is_refused(spark: Any) -> None:
    def takes_one(args: Any) -> None:
        pass

    for wrong in (takes_one, "not a function"):
        with pytest.raises(InvalidRun, match="main_fun"):
            TFCluster.run(spark, wrong, roles=Roles(worker=1), progress=False)  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_named(spark: Any) -> None:
    import socket

    from coordinator import CoordinatorUnavailable

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CoordinatorUnavailable, match=str(port)):
            run(spark, roles=Roles(worker=1), bind=f"127.0.0.1:{port}")
    assert sys.executable  # the driver lives on
