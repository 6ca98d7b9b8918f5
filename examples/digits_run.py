"""The demo's trainings, and how one is run, judged and cleared up after: the driver's side."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from coordinator import InputMode, Roles, TFCluster
from coordinator.core.model import Role
from coordinator.spark.results import RunResult
from examples import digits_feed, digits_fit, digits_sync, digits_training
from examples.live_view import LiveView
from executor_agent import claims, member_directory, processes, spark_chain
from executor_agent.core.supervision import MARKER_VARIABLE

REQUIRED_ACCURACY = 0.93


@dataclass(frozen=True)
class Training:
    """One of the programs: what runs on which members. ``library``: the Keras it saves with."""

    name: str
    title: str
    main_fun: Callable[[Any, Any], Any]
    roles: Roles
    library: str = "keras"
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[[Any], Any] | None = None
    """Of a training that Spark feeds: what with, made from the session."""
    epochs: int = 0

    @property
    def members(self) -> str:
        """``chief, 2 workers, ps``"""
        counts = [(role.value, self.roles.count(role)) for role in Role]
        return ", ".join(
            role if count == 1 else f"{count} {role}s" for role, count in counts if count
        )


TRAININGS = (
    Training(
        "ps",
        "ParameterServerStrategy, own loop on Keras 3",
        digits_training.train_digits,
        Roles(chief=1, worker=2, ps=1),
    ),
    Training(
        "sync",
        "MultiWorkerMirroredStrategy, own loop on Keras 3",
        digits_sync.train_in_step,
        Roles(worker=2),
    ),
    Training(
        "fit",
        "MultiWorkerMirroredStrategy, model.fit of tf_keras",
        digits_fit.fit_or_evaluate,
        Roles(chief=1, worker=1, evaluator=1),
        library="tf_keras",
        # Time to judge what the chief saved last, on a machine that is busy with other things.
        options={"grace": {"evaluator": 60}},
    ),
    Training(
        "feed",
        "MultiWorkerMirroredStrategy, rows fed by Spark",
        digits_feed.train_fed,
        Roles(worker=2),
        options={"input_mode": InputMode.SPARK},
        rows=digits_feed.images,
        epochs=digits_feed.EPOCHS,
    ),
)


@dataclass
class Outcome:
    """How a training went. ``complaints``: what should have been and was not."""

    training: Training
    model_dir: str
    run_id: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    accuracy: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began


def ship_examples(spark: Any, folder: str) -> None:
    """Sends this package to the executors, where members import ``digits_data`` from it.

    ``main_fun`` itself is sent by value with its module; other modules of one's own are not.
    ``folder`` has to stay as long as the session: executors fetch the archive when they need it.
    """
    package = Path(__file__).parent
    archive = shutil.make_archive(
        f"{folder}/examples", "zip", root_dir=package.parent, base_dir=package.name
    )
    spark.sparkContext.addPyFile(archive)


def train(
    spark: Any, training: Training, model_dir: str, steps: int | None, console: Console
) -> Outcome:
    """The main job: ten lines on any Spark cluster. Raises TfleaseError."""
    outcome = Outcome(training, f"{model_dir}/{training.name}")
    with LiveView(console) as view:
        console.print(f"form the gang, import TensorFlow, enter main_fun: {training.members} ...")
        with outcome.timed("form"):
            cluster = TFCluster.run(
                spark,
                training.main_fun,
                {"steps": steps},
                roles=training.roles,
                name=f"digits-{training.name}",
                model_dir=outcome.model_dir,
                progress=view.show,
                **training.options,
            )
        with cluster:
            console.print("train ...")
            with outcome.timed("train"):
                if training.rows is not None:
                    console.print(cluster.train(training.rows(spark), training.epochs).summary)
                result = cluster.wait()
            with outcome.timed("shut down"):
                cluster.shutdown()
    outcome.run_id = cluster.run_id
    outcome.complaints += look_at(result, console)
    return outcome


def look_at(result: RunResult, console: Console) -> list[str]:
    """Says what the members returned; what is wrong with it."""
    returned = result.returned
    trained = {name: value for name, value in returned.items() if isinstance(value, dict)}
    first = next(iter(trained.values()))
    console.print(f"trained {first['steps']} steps to a loss of {first['loss']:.4f}")
    complaints = []
    weights = {value["weights"] for value in trained.values() if "weights" in value}
    if len(weights) > 1:
        complaints.append(f"the workers' weights differ: {sorted(weights)}")
    elif weights:
        console.print(f"the weights of all {len(trained)} workers are the same")
    judged = returned.get("evaluator:0")
    if judged is not None:
        steps = ", ".join(f"{accuracy:.4f} at step {step}" for step, accuracy in judged)
        console.print(f"the evaluator judged {len(judged)} checkpoints: {steps}")
        if not judged or judged[-1][0] != first["steps"]:
            complaints.append("the evaluator missed the last checkpoint")
    return complaints


def evaluate(outcomes: Iterable[Outcome]) -> None:
    """In a process that shares nothing with the training but the saved files."""
    outcomes = list(outcomes)
    questions = [word for each in outcomes for word in (each.training.library, each.model_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "examples.digits_data", *questions],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the saved models cannot be evaluated:\n{done.stderr}")
    answers = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("accuracy ")]
    for outcome, answer in zip(outcomes, answers, strict=True):
        outcome.accuracy = float(answer)
        if outcome.accuracy < REQUIRED_ACCURACY:
            outcome.complaints.append("its accuracy is too low")


def left_behind(run_id: str) -> list[str]:
    """Processes of the run that still live: those with its marker in their environment, and those
    (sentinels have none) that were written down when they were started."""
    found = {process.pid for process in psutil.process_iter() if _is_marked(process, run_id)}
    for _, claim in claims.read_all(member_directory.claims_directory()):
        for pid, create_time in claim.processes.values() if claim.run_id == run_id else ():
            if processes.is_running(processes.ProcessIdentity(pid, create_time)):
                found.add(pid)
    return [f"{pid} {' '.join(spark_chain.command_line(pid))}" for pid in sorted(found)]


def _is_marked(process: psutil.Process, run_id: str) -> bool:
    try:
        marker = process.environ().get(MARKER_VARIABLE, "")
        return marker.startswith(run_id) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
