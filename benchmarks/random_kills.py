"""Twenty kills by chance during one training of the digits: it finishes, as good as undisturbed.

Two workers in step, as in the example, which saves a checkpoint every hundred steps. The kills are
spread over the steps, so that all of them come before the end however fast the machine is; when
between two of them, and which worker, is by chance.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import run_processes, spark_session
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.recovery_member import train
from benchmarks.recovery_result import account
from benchmarks.recovery_watch import TIMEOUT, Pictures, Recovery, kill, wait_until_all_run

WORKERS = 2
KILLS = 20
MAX_RESTARTS = 30
STEPS_PER_KILL = 500
NOISE = 0.015
"""Of accuracy: five of the 360 held-out images. Undisturbed trainings differ by some, too."""

_LOOK = 0.02
_TRAINING_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True)
class Trained:
    """One training. ``seconds``: from main_fun entered for the first time to its return."""

    steps: int
    seconds: float
    accuracy: float
    recoveries: tuple[Recovery, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def again(self) -> int:
        """Steps that were done a second time."""
        return sum(max(each.told - each.found, 0) for each in self.recoveries)


def measure(settings: Settings) -> Result:
    """Undisturbed first, ``repeats`` times; then once with the kills (``members``: so many)."""
    from examples.digits_run import ship_examples
    from examples.local_cluster import local_cluster

    kills = settings.members or KILLS
    steps = (kills + 1) * STEPS_PER_KILL
    with (
        tempfile.TemporaryDirectory(prefix="tflease-kills-") as scratch,
        local_cluster(executors=WORKERS, cores=1) as spark,
    ):
        spark_session.warm_up(spark, WORKERS)
        java = str(spark._jvm.java.lang.System.getProperty("java.version"))
        ship_examples(spark, scratch)
        undisturbed = []
        for number in range(settings.repeats):
            undisturbed.append(take(spark, Path(scratch, f"undisturbed-{number}"), steps, 0))
            settings.say(f"undisturbed: {spelled(undisturbed[-1])}")
        disturbed = take(spark, Path(scratch, "disturbed"), steps, kills, settings)
        settings.say(f"with {kills} kills: {spelled(disturbed)}")
    return result(undisturbed, disturbed, kills, java)


def take(
    spark: Any, folder: Path, steps: int, kills: int, settings: Settings | None = None
) -> Trained:
    """One training, up to its accuracy."""
    from coordinator import RestartPolicy, Roles, TFCluster

    stamps = folder / "stamps"
    stamps.mkdir(parents=True)
    pictures = Pictures()
    cluster = TFCluster.run(
        spark,
        train,
        {"stamps": str(stamps), "steps": steps},
        roles=Roles(worker=WORKERS),
        name="random-kills",
        model_dir=str(folder / "model"),
        grace={"worker": 0.0},
        restart=RestartPolicy(max_restarts=MAX_RESTARTS),
        progress=pictures,
    )
    began_at = time.monotonic()
    recoveries = []
    try:
        for when, victim in plan(kills, steps):
            generation = len(recoveries) + 1
            wait_until_all_run(cluster, generation)
            _wait_for_step(cluster, when)
            recoveries.append(kill(cluster, pictures, stamps, generation, victim))
            if settings is not None:
                settings.say(
                    f"{generation:3} of {kills}: at step {recoveries[-1].told}, entered again "
                    f"after {recoveries[-1].entered:.2f} s"
                )
        returned = cluster.wait(_TRAINING_TIMEOUT).returned
        seconds = time.monotonic() - began_at
    finally:
        cluster.shutdown(grace=0.0)
    return Trained(
        steps=int(returned["worker:0"]["steps"]),
        seconds=seconds,
        accuracy=_accuracy(folder / "model"),
        recoveries=tuple(recoveries),
        left=run_processes.left_behind(str(cluster.run_id)),
    )


def plan(kills: int, steps: int, seed: int = 0) -> list[tuple[int, int]]:
    """For each kill the step from which on it comes, and whom it hits: one in each part of the
    training, none in the last."""
    chosen = random.Random(seed)
    part = steps // (kills + 1)
    return [
        (number * part + chosen.randrange(1, part), chosen.randrange(WORKERS))
        for number in range(kills)
    ]


def _wait_for_step(cluster: Any, step: int) -> None:
    """Raises TimeoutError; RuntimeError when the training is over."""
    deadline = time.monotonic() + _TRAINING_TIMEOUT
    while True:
        run = cluster.status()
        if max(member.step for member in run.members) >= step:
            return
        if run.phase.is_terminal or run.failure is not None:
            raise RuntimeError(f"the run ended before step {step}: {run.failure}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"step {step} has not come within {_TRAINING_TIMEOUT:g} s")
        time.sleep(_LOOK)


def _accuracy(model: Path) -> float:
    """In a process that shares nothing with the training but the saved file."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.digits_data", "keras", str(model)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    lines = done.stdout.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("accuracy "))


# --- what it means --------------------------------------------------------------------------------


def result(undisturbed: Sequence[Trained], disturbed: Trained, kills: int, java: str) -> Result:
    """The tables and the verdict."""
    best = max(each.accuracy for each in undisturbed)
    lost = best - disturbed.accuracy
    left = [line for each in (*undisturbed, disturbed) for line in each.left]
    is_whole = len(disturbed.recoveries) == kills and disturbed.steps == undisturbed[0].steps
    alone = median(each.seconds for each in undisturbed)
    away = sum(each.entered for each in disturbed.recoveries)
    return Result(
        what=(
            f"{kills} times SIGKILL of the TensorFlow process of a worker during one training of "
            f"the digits by {WORKERS} workers in step (max_restarts={MAX_RESTARTS}, grace 0), "
            "against the same training undisturbed."
        ),
        tables=(
            Table(
                "The trainings",
                ("", "steps", "seconds", "restarts", "steps done again", "accuracy"),
                tuple(
                    (
                        name,
                        f"{each.steps:,}",
                        f"{each.seconds:.1f}",
                        str(len(each.recoveries)),
                        f"{each.again:,}",
                        f"{each.accuracy:.4f}",
                    )
                    for name, each in (
                        *(("undisturbed", each) for each in undisturbed),
                        ("with kills", disturbed),
                    )
                ),
            ),
            account(disturbed.recoveries),
        ),
        notes=(
            "Accuracy: of the saved model, loaded in a new process, on 360 images that training "
            f"never saw. Noise: {NOISE}, which is five of them.",
            f"With kills it took {disturbed.seconds - alone:.1f} s longer: {away:.1f} s from kills "
            "to main_fun, the rest is building the model, the first step's tracing and the steps "
            f"since the last checkpoint ({disturbed.again:,} in all, saved every hundred).",
            "In a step one worker waits for the other: whoever outlives a kill fails too, or is "
            "told to stop, whichever comes first; both are started again.",
            f"Afterwards the processes of the machine were searched: {len(left)} found.",
            *(f"LEFT BEHIND: {line}" for line in left),
        ),
        verdict=(
            f"{'finished' if is_whole else 'NOT FINISHED'} after {len(disturbed.recoveries)} of "
            f"{kills} kills; accuracy {disturbed.accuracy:.4f}, undisturbed {best:.4f}: within "
            f"{NOISE}: {'met' if lost <= NOISE else 'MISSED'}"
        ),
        is_sound=is_whole and not left,
        machine={"Java": java},
    )


def spelled(trained: Trained) -> str:
    """A line of progress."""
    return f"{trained.steps} steps in {trained.seconds:.1f} s, accuracy {trained.accuracy:.4f}"


FIGURE = Figure(
    name="random-kills",
    summary="20 kills by chance during one training of the digits: it finishes, as good as without",
    measure=measure,
    repeats=2,
)
