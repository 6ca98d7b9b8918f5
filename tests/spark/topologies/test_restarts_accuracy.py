"""A training of which a worker is killed half-way learns as much as one that nothing happens to:
the same program, the same number of steps, judged on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator import Roles, TFCluster
from coordinator.core.model import Cause
from examples.digits_data import evaluate_saved_model
from examples.digits_run import REQUIRED_ACCURACY, ship_examples
from examples.digits_sync import train_in_step
from examples.digits_training import train_digits
from tests.spark.topologies.restarting import THREE, history, left_of, process_of, wait_for_step

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(400)]

TOLERANCE = 0.02
"""Of 360 images, seven."""

SEED = 20

KILLED = Cause.KILLED_BY_SIGNAL.value

TRAININGS = [
    pytest.param(train_in_step, Roles(worker=2), 3000, id="synchronous"),
    pytest.param(train_digits, Roles(chief=1, worker=2, ps=1), 6000, id="parameter-servers"),
]
"""With the steps: so many that the killed one is back long before the end."""


@pytest.fixture(scope="module", autouse=True)
def shipped(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Not one test's own folder: executors may fetch the archive as long as the session lives.
    ship_examples(spark, str(tmp_path_factory.mktemp("shipped")))


def seeded(args: Any, ctx: Any) -> Any:
    """The training, from the same first weights each time. The order of what parallel workers do
    stays theirs."""
    import keras

    keras.utils.set_random_seed(args["seed"])
    return args["main_fun"](args, ctx)


@dataclass(frozen=True)
class Trained:
    steps: int
    began_at: int
    generations: int
    history: list[tuple[str, str, int]]
    accuracy: float


def train(
    spark: Any, main_fun: Any, roles: Roles, steps: int, model_dir: Path, victim: str = ""
) -> Trained:
    """``victim``: whose process is killed when a third of the steps is done."""
    with TFCluster.run(
        spark,
        seeded,
        {"main_fun": main_fun, "steps": steps, "seed": SEED},
        roles=roles,
        model_dir=str(model_dir),
        preload=("tensorflow",),
        reservation_timeout=200.0,
        progress=False,
        restart=THREE,
    ) as cluster:
        if victim:
            wait_for_step(cluster, steps // 3)
            process_of(cluster, victim).kill()
        result = cluster.wait(200)
    assert left_of(cluster) == []
    told = next(each for each in result.returned.values() if each is not None)
    accuracy = evaluate_saved_model("keras", model_dir)
    begun = told["steps"], told["began_at"], result.generations
    return Trained(*begun, history(cluster), accuracy)


@pytest.mark.parametrize("main_fun, roles, steps", TRAININGS)
def test_a_training_that_loses_a_worker_half_way_learns_as_much_as_an_undisturbed_one(
    spark: Any, tmp_path: Path, main_fun: Any, roles: Roles, steps: int
) -> None:
    """O1: the gang goes on from a checkpoint; a worker of parameter servers comes back alone, and
    the chief does not notice."""
    undisturbed = train(spark, main_fun, roles, steps, tmp_path / "undisturbed")
    assert (undisturbed.history, undisturbed.began_at) == ([], 0)
    disturbed = train(spark, main_fun, roles, steps, tmp_path / "disturbed", victim="worker:1")
    assert disturbed.history == [("worker:1", KILLED, 1)]
    goes_on_alone = roles.ps > 0
    assert disturbed.generations == (1 if goes_on_alone else 2)
    assert (disturbed.began_at == 0) == goes_on_alone
    assert undisturbed.steps == disturbed.steps == steps
    assert min(undisturbed.accuracy, disturbed.accuracy) >= REQUIRED_ACCURACY
    assert abs(undisturbed.accuracy - disturbed.accuracy) <= TOLERANCE
