"""The demo: train on a real Spark cluster, four ways, and leave nothing behind.

    make demo            or            python -m examples.digits
    make demo KILL=1     or            python -m examples.digits --kill-parameter-server-parent
    make demo DEMO_ARGS=--kill-worker

A Spark cluster with separate executor processes is started on this machine. Then scikit-learn's
handwritten digits are learnt, one after the other in the same session,

- with a chief, two workers and a parameter server (``digits_training.py``),
- by two workers in step, with a training loop of their own (``digits_sync.py``),
- by a chief and a worker in step with ``model.fit``, followed by an evaluator (``digits_fit.py``),
- by two workers in step on rows that Spark feeds (``digits_feed.py``),

and each saved model is loaded afresh in a new process and judged on images that training never
saw. With KILL=1 the first is trained only, and the Spark task above its parameter server is killed
halfway: see ``digits_kill.py``. With --kill-worker the second is trained only, a worker's process
is killed, and the run goes on from its last checkpoint: see ``digits_restart.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator import TfleaseError
from examples.digits_kill import kill_parameter_server_parent
from examples.digits_restart import train_through_a_kill
from examples.digits_run import (
    REQUIRED_ACCURACY,
    TRAININGS,
    Outcome,
    Training,
    evaluate,
    left_behind,
    ship_examples,
    train,
)
from examples.local_cluster import local_cluster


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; leaves by SystemExit where argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [each.name for each in TRAININGS]
    parser.add_argument("--only", choices=names, help="run this training alone")
    parser.add_argument(
        "--steps",
        type=int,
        help="gradient steps of each training that counts them (default: 1200 ps, 500 others)",
    )
    parser.add_argument(
        "--model-dir",
        help="where to save the models, a folder each (default: a temporary one); a training that "
        "finds checkpoints there goes on from them",
    )
    parser.add_argument(
        "--kill-parameter-server-parent",
        action="store_true",
        help="kill the Spark task above the parameter server halfway, show what happens to every "
        "process, and train again",
    )
    parser.add_argument(
        "--kill-worker",
        action="store_true",
        help="kill the process of a synchronous worker in mid-training, in a run that restarts",
    )
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error("--steps: at least 1")
    if options.kill_parameter_server_parent:
        if options.only not in (None, "ps"):
            parser.error("--kill-parameter-server-parent needs the training with one: --only ps")
        options.only = "ps"
    if options.kill_worker:
        if options.only not in (None, "sync"):
            parser.error("--kill-worker needs the training of its example: --only sync")
        options.only = "sync"
    return options


def main() -> int:
    """Runs the demo. The exit code is 0 when all models are good and nothing is left."""
    options = parse()
    console = Console()
    chosen = [each for each in TRAININGS if options.only in (None, each.name)]
    with tempfile.TemporaryDirectory(prefix="tflease-digits-") as scratch, ExitStack() as stack:
        model_dir = os.path.abspath(options.model_dir) if options.model_dir else scratch
        console.print("[bold]start a Spark cluster of 2 executors, 2 cores each[/bold] ...")
        began = time.monotonic()
        spark = stack.enter_context(local_cluster(executors=2, cores=2))
        ship_examples(spark, scratch)
        seconds = time.monotonic() - began
        complaints: list[str] = []
        try:
            if options.kill_parameter_server_parent:
                complaints += kill_parameter_server_parent(spark, chosen[0], model_dir, console)
            way = train_through_a_kill if options.kill_worker else train
            outcomes = train_all(spark, chosen, model_dir, options.steps, console, way)
        except TfleaseError as error:
            console.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
            return 1
    return report(console, outcomes, seconds, complaints)


def train_all(
    spark: Any,
    chosen: Sequence[Training],
    model_dir: str,
    steps: int | None,
    console: Console,
    way: Callable[..., Outcome] = train,
) -> list[Outcome]:
    """One training after the other, in this way; then all models are evaluated in one new
    process."""
    outcomes = []
    for each in chosen:
        console.print(f"\n[bold]{each.title}[/bold]")
        outcomes.append(way(spark, each, model_dir, steps, console))
    console.print("\n[bold]load what was saved afresh and evaluate it[/bold] ...")
    evaluate(outcomes)
    return outcomes


def report(
    console: Console, outcomes: Sequence[Outcome], cluster_seconds: float, complaints: list[str]
) -> int:
    """Prints the outcome; the exit code."""
    table = Table("training", "members", title="Where the time went, in seconds")
    phases = {"form": "form, import, enter", "train": "train", "shut down": "shut down"}
    for header in phases.values():
        table.add_column(header, justify="right")
    for each in outcomes:
        spent = (f"{each.seconds[phase]:.1f}" for phase in phases)
        table.add_row(each.training.name, each.training.members, *spent)
    table.caption = f"before that, to start Spark and two executors: {cluster_seconds:.1f}"
    console.print(table)
    for each in outcomes:
        console.print(
            f"accuracy on held-out images: {each.accuracy:.4f} (at least {REQUIRED_ACCURACY}), "
            f"{each.training.title}",
            soft_wrap=True,
        )
        complaints += [f"{each.training.title}: {complaint}" for complaint in each.complaints]
    left = [line for each in outcomes for line in left_behind(each.run_id)]
    console.print(f"processes left behind: {len(left)}")
    for line in (*left, *complaints):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    return 1 if left or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
