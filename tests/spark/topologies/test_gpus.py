"""GPUs on real Spark, without a GPU: NVML is the fake one, and Spark's discovery script a shell's.

The applications are processes of their own (`application`), so that there can be several at once.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator import InputMode, Roles, TFCluster, TfleaseError
from coordinator.core.model import RunPhase, RunView
from coordinator.testing.gpus import FakeGpus
from tests.spark.application import Application, application
from tests.spark.helpers import DEADLINE, eventually, marked, member_process_of, wait_until_gone

pytestmark = pytest.mark.timeout(600)

TWO = Roles(worker=2)
ONE_EACH = Roles(worker=1)

# What a worker of Spark's asks once, at its start: the first is told "0", the second "1".
DISCOVERY = """#!/bin/sh
i=0
while ! mkdir "{folder}/$i" 2>/dev/null; do i=$((i + 1)); done
echo "{{\\"name\\": \\"gpu\\", \\"addresses\\": [\\"$((i % 2))\\"]}}"
"""


# -- in an application's driver ---------------------------------------------------------------

_runs: dict[str, TFCluster] = {}


def hold(args: Any, ctx: Any) -> None:
    """Tells what it sees of GPUs, and keeps them until it is told to stop."""
    seen = {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "order": os.environ.get("CUDA_DEVICE_ORDER"),
        "gpus": list(ctx.gpus),
    }
    path = Path(args) / f"{ctx.job_name}-{ctx.task_index}.json"
    path.with_suffix(".new").write_text(json.dumps(seen))
    path.with_suffix(".new").rename(path)
    ctx.wait_for_stop()


def _run(spark: Any, folder: Path, name: str, **more: Any) -> TFCluster:
    (folder / name).mkdir()
    options = {"preload": (), "progress": False, "reservation_timeout": 120.0, **more}
    return TFCluster.run(spark, hold, str(folder / name), name=name, **options)


def _members(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def begin(
    spark: Any, folder: Path, name: str, roles: Roles, gpus: Roles | None = ONE_EACH
) -> dict[str, Any]:
    """A run whose members hold what they have; what they see, once all have told."""
    cluster = _runs[name] = _run(spark, folder, name, roles=roles, gpus=gpus)
    count = len(cluster.status().members)
    eventually(lambda: len(_members(folder / name)) == count, "all members to tell")
    return {"run_id": cluster.run_id, **_members(folder / name)}


def end(spark: Any, name: str) -> None:
    _runs.pop(name).shutdown()


def feed(spark: Any) -> dict[str, Any]:
    """A run whose members hold all GPUs while Spark feeds them, with a shuffle above that."""

    def add_up(args: Any, ctx: Any) -> tuple[int, int]:
        batches = ctx.feed_batches(10, equal_steps=False)
        return len(ctx.gpus), sum(int(batch["id"].sum()) for batch in batches)

    options = {"preload": (), "progress": False, "reservation_timeout": 120.0}
    fed = InputMode.SPARK
    with TFCluster.run(
        spark, add_up, roles=TWO, gpus=ONE_EACH, input_mode=fed, **options
    ) as cluster:
        report = cluster.train(spark.range(0, 1000, 1, 4).repartition(3))
        told = cluster.wait(DEADLINE).returned.values()
    return {
        "rows": report.rows,
        "gpus": [gpus for gpus, _ in told],
        "sum": sum(total for _, total in told),
    }


def failure(spark: Any, name: str) -> str:
    """How a run fails by itself."""
    cluster = _runs.pop(name)
    try:
        cluster.wait(DEADLINE)
    except TfleaseError as error:
        return str(error)
    finally:
        cluster.shutdown()
    raise AssertionError("it went well")


def refusal(
    spark: Any, folder: Path, name: str, roles: Roles, gpus: Roles, timeout: float
) -> tuple[str, str]:
    """The error of a run that cannot begin: its type and its text."""
    try:
        cluster = _run(spark, folder, name, roles=roles, gpus=gpus, reservation_timeout=timeout)
    except TfleaseError as error:
        return type(error).__name__, str(error)
    cluster.shutdown()
    raise AssertionError("it began")


def hand_over(spark: Any, folder: Path, holder: str, name: str) -> dict[str, Any]:
    """Starts a run whose GPU another run of this driver has, which is ended once that is said."""
    said: list[tuple[str, ...]] = []

    def see(run: RunView) -> None:
        waits = tuple(text for member in run.members for text in member.gpu_obstacles)
        if run.phase is RunPhase.FORMING and waits and not said:
            said.append(waits)
            _runs[holder].stop("its GPU is wanted")

    with _run(spark, folder, name, roles=Roles(worker=1), gpus=ONE_EACH, progress=see):
        eventually(lambda: _members(folder / name), "the member to tell")
        seen = _members(folder / name)
    _runs.pop(holder).shutdown()
    return {"said": " ".join(said[0]), **seen}


# -- tests ------------------------------------------------------------------------------------


def executor_environment(gpus: FakeGpus) -> dict[str, str]:
    return {f"spark.executorEnv.{name}": value for name, value in gpus.environ.items()}


def visible(seen: Mapping[str, Any]) -> list[str]:
    return sorted(value["visible"] for key, value in seen.items() if key != "run_id")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeGpus, list[str]]:
    """Two GPUs of a machine where Spark knows of none."""
    gpus = FakeGpus(tmp_path_factory.mktemp("ours"))
    return gpus, gpus.add(2)


@pytest.fixture(scope="module")
def driver(ours: tuple[FakeGpus, list[str]], long_lived: Any) -> Iterator[Application]:
    with application("local[3]", executor_environment(ours[0])) as started:
        long_lived.allow_tree(started.pid)
        yield started


@pytest.fixture(scope="module")
def assigned(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeGpus, list[str]]:
    """Two GPUs that Spark manages, one for each of its workers."""
    gpus = FakeGpus(tmp_path_factory.mktemp("assigned"))
    return gpus, gpus.add(2)


@pytest.fixture(scope="module")
def cluster(
    assigned: tuple[FakeGpus, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
    long_lived: Any,
) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("discovery")
    script = folder / "discover"
    script.write_text(DISCOVERY.format(folder=folder))
    script.chmod(0o755)
    conf = {
        **executor_environment(assigned[0]),
        "spark.executor.memory": "1g",
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(script),
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(script),
    }
    with application("local-cluster[2,2,1024]", conf, executors=2) as started:
        long_lived.allow_tree(started.pid)
        yield started


def test_each_worker_has_the_gpu_that_spark_gave_it_and_a_ps_has_none(
    cluster: Application, assigned: tuple[FakeGpus, list[str]], tmp_path: Path
) -> None:
    """G2, G3, G6: beside two GPU tasks there is a task without, on the same executors."""
    seen = cluster.call(begin, tmp_path, "run", Roles(worker=2, ps=1))
    cluster.call(end, "run")
    ps = seen.pop("ps-0")
    assert (ps["visible"], ps["gpus"]) == ("", [])
    assert visible(seen) == sorted(assigned[1])
    assert [seen[name]["gpus"] for name in ("worker-0", "worker-1")] == [
        [seen[name]["visible"]] for name in ("worker-0", "worker-1")
    ]
    assert seen["worker-0"]["order"] == "PCI_BUS_ID"


def test_members_that_hold_all_gpus_are_fed(cluster: Application) -> None:
    """Feeders and the shuffle above them want none."""
    found = cluster.call(feed)
    assert found == {"rows": 1000, "gpus": [1, 1], "sum": sum(range(1000))}


def test_members_of_a_run_that_asked_for_no_gpu_see_none(
    cluster: Application, tmp_path: Path
) -> None:
    """G3."""
    seen = cluster.call(begin, tmp_path, "run", TWO, None)
    cluster.call(end, "run")
    assert visible(seen) == ["", ""]


def test_more_for_a_member_than_an_executor_has_is_refused_before_any_job(
    cluster: Application, tmp_path: Path
) -> None:
    """G4: with such a profile Spark waits for ever."""
    error, text = cluster.call(refusal, tmp_path, "run", Roles(worker=1), Roles(worker=2), 60.0)
    assert error == "NotEnoughSlots"
    assert "each worker needs 2 GPUs, and an executor has 1" in text


def test_a_gpu_that_spark_assigns_but_another_uses_is_waited_for_and_its_user_named(
    cluster: Application, assigned: tuple[FakeGpus, list[str]], tmp_path: Path
) -> None:
    """G5: another would collide with the next task that Spark gives it to."""
    gpus, [busy, _] = assigned
    gpus.use(busy, 5 << 30, [os.getpid()])
    try:
        error, text = cluster.call(refusal, tmp_path, "run", TWO, ONE_EACH, 20.0)
    finally:
        gpus.release(busy)
    assert error == "ReservationTimeout"
    assert busy in text
    assert str(os.getpid()) in text
    assert visible(cluster.call(begin, tmp_path, "next", TWO)) == sorted(assigned[1])
    cluster.call(end, "next")


def test_a_gpu_that_spark_does_not_give_is_waited_for_and_the_run_that_has_it_named(
    cluster: Application, tmp_path: Path
) -> None:
    """G5: Spark starts no task, so that no agent is there to look."""
    first = cluster.call(begin, tmp_path, "first", TWO)
    error, text = cluster.call(refusal, tmp_path, "second", Roles(worker=1), ONE_EACH, 15.0)
    cluster.call(end, "first")
    assert error == "ReservationTimeout"
    assert f"run {first['run_id']} (first) has some for worker:0, worker:1" in text


def test_more_than_the_host_has_is_refused_by_its_agent(
    driver: Application, tmp_path: Path
) -> None:
    """G4, where Spark knows of no GPUs."""
    _, text = driver.call(refusal, tmp_path, "run", Roles(worker=1), Roles(worker=3), 30.0)
    assert "worker:0 needs 3 GPUs, but has 2" in text


def test_a_busy_gpu_is_waited_for_and_its_holder_named(
    driver: Application, ours: tuple[FakeGpus, list[str]], tmp_path: Path
) -> None:
    """G5: the holder, its pid and since when, in the error; in time it is simply had next."""
    first = driver.call(begin, tmp_path, "first", TWO)
    assert visible(first) == sorted(ours[1])
    error, text = driver.call(refusal, tmp_path, "second", Roles(worker=1), ONE_EACH, 15.0)
    assert error == "ReservationTimeout"
    assert first["run_id"] in text
    assert "waits for a GPU" in text
    third = driver.call(hand_over, tmp_path, "first", "third")
    assert first["run_id"] in third["said"]
    assert third["worker-0"]["visible"] in ours[1]


def test_after_a_sigkill_the_gpu_is_free_for_the_next_run(
    driver: Application, ours: tuple[FakeGpus, list[str]], tmp_path: Path
) -> None:
    """O10: the kernel lets go of the claim with the last process that has it."""
    gpus, uuids = ours
    seen = driver.call(begin, tmp_path, "killed", TWO)
    victim = member_process_of(seen["run_id"], "worker:0")
    gpus.use(seen["worker-0"]["visible"], 5 << 30, [victim.pid], until_gone=True)
    processes = marked(seen["run_id"])
    victim.send_signal(signal.SIGKILL)
    assert "worker:0" in driver.call(failure, "killed")
    wait_until_gone(processes, "survived the run")
    assert visible(driver.call(begin, tmp_path, "next", TWO)) == sorted(uuids)
    driver.call(end, "next")


def test_two_applications_never_have_the_same_gpu(
    driver: Application,
    ours: tuple[FakeGpus, list[str]],
    tmp_path: Path,
) -> None:
    """G2: each with a coordinator of its own; what they share is the folder of claims."""
    gpus, uuids = ours
    with application("local[3]", executor_environment(gpus)) as other:
        one = driver.call(begin, tmp_path, "one", Roles(worker=1))
        two = other.call(begin, tmp_path, "two", Roles(worker=1))
        assert sorted(visible(one) + visible(two)) == sorted(uuids)
        error, text = driver.call(refusal, tmp_path, "three", TWO, ONE_EACH, 15.0)
        assert error == "ReservationTimeout"
        assert one["run_id"] in text
        assert two["run_id"] in text
        driver.call(end, "one")
        other.call(end, "two")
        started = [
            driver.start(begin, tmp_path, "four", TWO),
            other.start(begin, tmp_path, "five", Roles(worker=1)),
        ]
        # Whoever comes first has its GPUs; the other waits, and must have none of the same.
        first = eventually(lambda: next((f for f in started if f.done()), None), "one to begin")
        assert first.exception() is None
        application_of = {started[0]: (driver, "four"), started[1]: (other, "five")}
        winner, name = application_of[first]
        winner.call(end, name)
        last = next(f for f in started if f is not first)
        assert set(visible(last.result(2 * DEADLINE))) <= set(uuids)
        loser, name = application_of[last]
        loser.call(end, name)
