"""The demo: train on a real Spark cluster with a parameter server, and leave nothing behind.

    make demo            or            python -m examples.digits

A Spark cluster with separate executor processes is started on this machine. A chief, two workers
and a parameter server train on scikit-learn's handwritten digits (``digits_training.py``); then
the saved model is loaded afresh in a new process and judged on images that training never saw.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
from rich.console import Console
from rich.table import Table

from coordinator import Roles, TFCluster, TfleaseError
from examples.digits_training import train_digits
from examples.live_view import LiveView
from examples.local_cluster import local_cluster
from executor_agent import member_directory, processes
from executor_agent.core.supervision import CLAIM, MARKER_VARIABLE, Claim

REQUIRED_ACCURACY = 0.93


def main() -> int:
    """Runs the demo. The exit code is 0 when the model is good and nothing is left."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=__doc__)
    parser.add_argument("--steps", type=int, default=1200, help="gradient steps in all")
    parser.add_argument("--model-dir", help="where to save the model (default: a temporary one)")
    options = parser.parse_args()
    console = Console()
    phases = Phases(console)
    with tempfile.TemporaryDirectory(prefix="tflease-digits-") as scratch, ExitStack() as stack:
        model_dir = options.model_dir or scratch
        with phases.timed("start a Spark cluster of 2 executors, 2 cores each"):
            spark = stack.enter_context(local_cluster(executors=2, cores=2))
        try:
            run_id = train(spark, model_dir, options.steps, console, phases)
        except TfleaseError as error:
            console.print(f"{type(error).__name__}: {error}", markup=False)
            return 1
        with phases.timed("load the saved model afresh and evaluate it"):
            accuracy = evaluate_in_new_process(model_dir)
    return report(console, phases, accuracy, left_behind(run_id))


def train(spark, model_dir, steps, console, phases) -> str:
    """The main job: ten lines on any Spark cluster."""
    view = LiveView(console)
    args = {"model_dir": model_dir, "steps": steps}
    roles = Roles(chief=1, worker=2, ps=1)
    with view:
        with phases.timed("form the gang, import TensorFlow, enter main_fun on all 4 members"):
            cluster = TFCluster.run(
                spark, train_digits, args, roles=roles, name="digits", progress=view.show
            )
        with cluster:
            with phases.timed("train"):
                result = cluster.wait()
            with phases.timed("shut down"):
                cluster.shutdown()
    chief = result["chief:0"]
    console.print(f"trained {chief['steps']} steps to a loss of {chief['loss']:.4f}")
    return cluster.run_id


def evaluate_in_new_process(model_dir: str) -> float:
    """In a process that shares nothing with the training but the saved file."""
    code = (
        "import sys; from examples.digits_training import evaluate_saved_model; "
        "print('accuracy', evaluate_saved_model(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model_dir], check=True, capture_output=True, text=True
    )
    return float(done.stdout.rpartition("accuracy")[2])


def left_behind(run_id: str) -> list[str]:
    """Processes of the run that still live: those with its marker in their environment, and those
    (sentinels have none) that were written down when they were started."""
    found = {process.pid for process in psutil.process_iter() if _is_marked(process, run_id)}
    for claim in (member_directory.home() / run_id).glob(f"*/{CLAIM}"):
        for pid, create_time in Claim.from_json(claim.read_text()).processes.values():
            if processes.is_running(processes.ProcessIdentity(pid, create_time)):
                found.add(pid)
    return [f"{pid} {' '.join(processes.command_line(pid))}" for pid in sorted(found)]


def _is_marked(process: psutil.Process, run_id: str) -> bool:
    try:
        marker = process.environ().get(MARKER_VARIABLE, "")
        return marker.startswith(run_id) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Phases:
    """The time that each phase took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        self._console.print(f"[bold]{name}[/bold] ...")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def report(console: Console, phases: Phases, accuracy: float, left: list[str]) -> int:
    """Prints the outcome; the exit code."""
    table = Table("phase", "seconds", title="Where the time went")
    for name, seconds in phases.seconds.items():
        table.add_row(name, f"{seconds:.1f}")
    console.print(table)
    console.print(f"accuracy on held-out images: {accuracy:.4f} (at least {REQUIRED_ACCURACY})")
    console.print(f"processes left behind: {len(left)}")
    for each in left:
        console.print(f"  {each}")
    return 0 if accuracy >= REQUIRED_ACCURACY and not left else 1


if __name__ == "__main__":
    sys.exit(main())
