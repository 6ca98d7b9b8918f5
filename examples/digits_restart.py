"""The demo's smaller accident: a worker's process is killed in mid-training, and the run goes on.

A synchronous step needs all workers, so that one killed process stops all. With ``restart=`` the
run does not fail: everybody is stopped, both workers start again, and training goes on from the
latest checkpoint (``digits_sync.py`` takes one every 100 steps), to a model that is as good.
"""

from __future__ import annotations

import time
from typing import Any

import psutil
from rich.console import Console

from coordinator import RestartPolicy, TFCluster
from coordinator.core.model import MemberPhase, RunPhase
from examples.digits_kill import wait_for_step
from examples.digits_run import Outcome, Training, look_at
from examples.live_view import LiveView

VICTIM = "worker:1"
KILL_AT_STEP = 200
STEPS = 3000  # the training must not be over before the accident
_RESTART_TIMEOUT = 120.0


def train_through_a_kill(
    spark: Any, training: Training, model_dir: str, steps: int | None, console: Console
) -> Outcome:
    """Trains, kills, and lets the run do the rest. Raises TfleaseError."""
    outcome = Outcome(training, f"{model_dir}/{training.name}")
    with LiveView(console) as view:
        with outcome.timed("form"):
            cluster = TFCluster.run(
                spark,
                training.main_fun,
                {"steps": steps or STEPS},
                roles=training.roles,
                name=f"digits-{training.name}",
                model_dir=outcome.model_dir,
                progress=view.show,
                restart=RestartPolicy(max_restarts=3),
                **training.options,
            )
        with cluster:
            with outcome.timed("train"):
                step = wait_for_step(cluster, KILL_AT_STEP)
                kill_process(cluster, step, console)
                wait_for_next_generation(cluster, console)
                result = cluster.wait()
            with outcome.timed("shut down"):
                cluster.shutdown()
    outcome.run_id = cluster.run_id
    for number, restart in enumerate(result.restarts, 1):
        console.print(f"restart {number}: {restart.summary}", markup=False, soft_wrap=True)
    outcome.complaints += look_at(result, console)
    began_at = result["worker:0"]["began_at"]
    console.print(f"generation {result.generations} went on from the checkpoint of step {began_at}")
    if len(result.restarts) != 1 or str(result.restarts[0].member) != VICTIM:
        outcome.complaints.append(f"not one restart because of {VICTIM}: {result.restarts}")
    if not began_at:
        outcome.complaints.append("it began from the beginning: no checkpoint was found")
    return outcome


def kill_process(cluster: TFCluster, step: int, console: Console) -> None:
    """SIGKILL to the TensorFlow process of the victim, the child of its agent's sentinel."""
    member = next(each for each in cluster.status().members if str(each.id) == VICTIM)
    if member.executor is None:
        raise RuntimeError(f"{VICTIM} is on no executor")
    sentinel = psutil.Process(member.executor.pid).parent()
    children = sentinel.children() if sentinel is not None else []
    process = next(each for each in children if "executor_agent.bootstrap" in each.cmdline())
    console.print(f"step {step}: SIGKILL to the TensorFlow process of {VICTIM}, pid {process.pid}")
    process.kill()


def wait_for_next_generation(cluster: TFCluster, console: Console) -> None:
    """Until all are in ``main_fun`` once more; says how long that took."""
    began = time.monotonic()
    while time.monotonic() < began + _RESTART_TIMEOUT:
        run = cluster.status()
        has_started = run.generation > 1 and run.phase is RunPhase.RUNNING
        if run.settled or (
            has_started and all(each.phase is MemberPhase.RUNNING for each in run.members)
        ):
            break
        time.sleep(0.02)
    seconds = time.monotonic() - began
    console.print(f"{seconds:.1f} s after the kill all workers are in main_fun again")
