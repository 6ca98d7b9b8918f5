"""E3: what members print is found in the executor's stderr, and on the driver on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyspark
import pytest

from coordinator import InvalidRun, Roles, TFCluster
from tests.spark.helpers import eventually


def speak(gate: str, ctx: Any) -> None:
    print(f"{ctx.job_name} {ctx.task_index} speaks", flush=True)
    while not Path(gate).exists() and not ctx.wait_for_stop(0.05):
        pass
    print("these are its last words")


def test_the_driver_reads_the_log_of_a_running_member_and_of_one_that_has_ended(
    spark: Any, gate: Path
) -> None:
    roles = Roles(chief=1, worker=1)
    with TFCluster.run(
        spark, speak, str(gate), roles=roles, preload=(), progress=False, reservation_timeout=120
    ) as cluster:
        eventually(lambda: "worker 0 speaks" in cluster.logs("worker:0"), "the log of worker:0")
        assert "chief" not in cluster.logs("worker:0")
        both = cluster.logs()
        assert "[chief:0] chief 0 speaks" in both
        assert "[worker:0] worker 0 speaks" in both
        with pytest.raises(InvalidRun, match="no member 'worker:7': chief:0, worker:0"):
            cluster.logs("worker:7")
        gate.touch()
        cluster.wait(60)
        assert cluster.logs("worker:0").endswith("these are its last words")
    assert "worker 0 speaks" in cluster.logs("worker:0"), "also when nobody is left to ask"


def print_much(gate: str, ctx: Any) -> None:
    for number in range(20_000):
        print(f"line {number} of {ctx.task_index}")
    print("all is printed", flush=True)
    while not Path(gate).exists() and not ctx.wait_for_stop(0.05):
        pass
    print("the end")


def test_the_driver_follows_what_members_print(
    spark: Any, gate: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every line, in order, and the run's end is the end of it; on standard error, too."""
    roles = Roles(worker=2)
    with TFCluster.run(
        spark, print_much, str(gate), roles=roles, preload=(), progress=False, show_logs=True
    ) as cluster:
        found = []
        waiting = {f"[worker:{worker}] all is printed" for worker in (0, 1)}
        for line in cluster.logs(follow=True):
            found.append(line)
            waiting.discard(line)
            if not waiting:
                gate.touch()
        assert cluster.status().phase.is_terminal
    shown = capfd.readouterr().err.splitlines()
    assert not [line for line in found if line.startswith("[tflease]")]
    for worker in (0, 1):
        name = f"[worker:{worker}]"
        printed = [f"{name} line {number} of {worker}" for number in range(20_000)]
        of_it = [line for line in found if line.startswith(name)]
        assert of_it[-20_002:] == [*printed, f"{name} all is printed", f"{name} the end"]
        assert f"{name} the end" in shown


def test_the_executors_stderr_has_it_with_the_members_name_in_front(spark: Any, gate: Path) -> None:
    """There too, where Spark's own page shows it."""
    gate.touch()
    with TFCluster.run(
        spark, speak, str(gate), roles=Roles(worker=1), preload=(), progress=False
    ) as cluster:
        cluster.wait(60)
    work = Path(pyspark.__file__).parent / "work" / spark.sparkContext.applicationId

    def is_there() -> bool:
        texts = [each.read_text(errors="replace") for each in work.glob("*/stderr")]
        return any("[worker:0] these are its last words" in text for text in texts)

    eventually(is_there, "the line in an executor's stderr")
