"""The demo's accident: the Spark task above the parameter server is killed in mid-training.

Whenever Spark cancels a task, ``pyspark.daemon`` SIGKILLs the task's Python worker and nothing
else. What a program has started below it is orphaned and runs on, with its port and its GPU. This
does the same on purpose, and shows when every process of the run ended, which error the driver
got, and that the same Spark session trains again to a good model.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from coordinator import TFCluster, TrainingFailed
from coordinator.core.model import Endpoint, ExitReport, MemberView, RunPhase, RunView
from examples.digits_run import Training, left_behind
from examples.live_view import LiveView
from examples.process_watch import ProcessWatch, Watched

KILL_AT_STEP = 200
ENOUGH_STEPS = 1_000_000  # the training must not be over before the accident
_PROGRESS_TIMEOUT = 300.0
_END_TIMEOUT = 120.0

PYTHON_WORKER = "Spark's Python worker"
SENTINEL = "sentinel"
AGENT = "agent"
TENSORFLOW = "TensorFlow process"
COORDINATOR = "coordinator"


def kill_parameter_server_parent(
    spark: Any, training: Training, model_dir: str, console: Console
) -> list[str]:
    """Trains until the accident and tidies up; what was not as promised."""
    console.print(f"\n[bold]{training.title}, until the accident[/bold]")
    with (
        LiveView(console) as view,
        TFCluster.run(
            spark,
            training.main_fun,
            {"steps": ENOUGH_STEPS},
            roles=training.roles,
            name="digits-kill",
            model_dir=f"{model_dir}/{training.name}",
            progress=view.show,
        ) as cluster,
    ):
        step = wait_for_step(cluster, KILL_AT_STEP)
        run = cluster.status()
        ps = next(each for each in run.members if str(each.id) == "ps:0")
        with ProcessWatch(cast_of(run)) as watch:
            victim = next(
                each for each in watch.watched if (each.of, each.part) == ("ps:0", PYTHON_WORKER)
            )
            console.print(f"step {step}: SIGKILL to {victim.part} above ps:0, pid {victim.pid}")
            watch.kill(victim)
            complaints = told_to_the_driver(cluster, console)
            cluster.shutdown()
            ended = watch.stop()
    console.print(table_of_ends(watch.watched, ended, victim, cluster.status()))
    complaints += [
        f"still alive: {each.part} {each.of}, pid {each.pid}"
        for each in watch.watched
        if must_end(each, victim) and each not in ended
    ]
    return complaints + what_is_left(cluster.run_id, ps, console)


def wait_for_step(cluster: TFCluster, step: int) -> int:
    """Until the chief has reported that many steps. Raises what ended the run before."""
    deadline = time.monotonic() + _PROGRESS_TIMEOUT
    while (reached := max(each.step for each in cluster.status().members)) < step:
        if cluster.status().phase is not RunPhase.RUNNING:
            cluster.wait(_END_TIMEOUT)
        if time.monotonic() > deadline:
            raise TimeoutError(f"step {reached} after {_PROGRESS_TIMEOUT:g} s, not {step}")
        time.sleep(0.02)
    return reached


def cast_of(run: RunView) -> list[Watched]:
    """Every process of the run, from Spark's Python workers down, and the coordinator.

    A member tells its agent's pid; the sentinel is the agent's parent, and the child of the Python
    worker that holds the Spark task. All of them are on this machine.
    """
    found = [
        Watched.now(each.pid, COORDINATOR)
        for each in psutil.Process(os.getpid()).children()
        if "coordinator.embedded" in each.cmdline()
    ]
    for member in run.members:
        if member.executor is None:
            raise RuntimeError(f"{member.id} is on no executor")
        name = str(member.id)
        agent = psutil.Process(member.executor.pid)
        sentinel = expect(agent.parent(), "executor_agent.sentinel")
        worker = expect(sentinel.parent(), "pyspark.daemon")  # it is a fork of the daemon
        found += [
            Watched.now(worker.pid, PYTHON_WORKER, name),
            Watched.now(sentinel.pid, SENTINEL, name),
            Watched.now(agent.pid, AGENT, name),
        ]
        for each in sentinel.children(recursive=True):
            if each.pid != agent.pid:
                is_main = "executor_agent.bootstrap" in each.cmdline()
                found.append(Watched.now(each.pid, TENSORFLOW if is_main else each.name(), name))
    return found


def expect(process: psutil.Process | None, module: str) -> psutil.Process:
    """The process, if it runs that module. Raises RuntimeError."""
    if process is None or module not in process.cmdline():
        raise RuntimeError(f"expected a process of {module}, found {process}")
    return process


def must_end(process: Watched, victim: Watched) -> bool:
    """Python workers of other members are Spark's, which keeps them for its next tasks."""
    return process.part != PYTHON_WORKER or process == victim


def told_to_the_driver(cluster: TFCluster, console: Console) -> list[str]:
    """What ``wait`` raises. Returns a complaint unless that names the member and the cause."""
    try:
        cluster.wait(_END_TIMEOUT)
    except TrainingFailed as error:
        console.print(f"\n[bold]the driver gets[/bold] {type(error).__name__}:")
        console.print(abbreviated(str(error)), markup=False, highlight=False)
        failure = error.failure
        if failure is not None and str(failure.member) == "ps:0":
            console.print(f"first cause: {failure.member}, {failure.cause.value}\n")
            return []
        return [f"the first cause is not ps:0: {failure}"]
    except TimeoutError:
        return [f"the driver did not hear of the accident within {_END_TIMEOUT:g} s"]
    return ["the run succeeded without its parameter server"]


def abbreviated(story: str, lines: int = 3, width: int = 150) -> str:
    """An exception's text without what is long in it: of a log or a traceback only its length."""
    cut = [line if len(line) <= width else f"{line[: width - 4]} ..." for line in story.split("\n")]
    titles = [number for number, line in enumerate(cut) if line.startswith("--- ")]
    shown = cut[: titles[0]] if titles else cut
    for title, end in pairwise((*titles, len(cut))):
        section = [line for line in cut[title + 1 : end] if line]
        shown += [cut[title], *(section if len(section) <= lines else [f"({len(section)} lines)"])]
    return "\n".join(f"  {line}" for line in shown if line)


def table_of_ends(
    watched: Sequence[Watched], ended: Mapping[Watched, float], victim: Watched, run: RunView
) -> Table:
    """All of them in the order of their ends; who lives on comes last."""
    exits = {str(member.id): member.exit for member in run.members}
    table = Table(title="What became of every process")
    table.add_column("ms after the kill", justify="right")
    for header in ("member", "process", "pid", "how it ended"):
        table.add_column(header)
    for each in sorted(watched, key=lambda each: ended.get(each, float("inf"))):
        when = f"{1000 * ended[each]:.1f}" if each in ended else "-"
        if each == victim:
            note = "SIGKILL by this demo"
        elif each in ended:
            note = how(exits.get(each.of)) if each.part == TENSORFLOW else ""
        else:
            note = "STILL ALIVE" if must_end(each, victim) else "lives: Spark's, for its next tasks"
        table.add_row(when, each.of or "-", each.part, str(each.pid), note)
    return table


def how(end: ExitReport | None) -> str:
    """What the member's sentinel has seen."""
    if end is None:
        return "not reported"
    if end.signal is None:
        return f"left by itself: {end.cause.value}"
    by = " by its sentinel" if end.killed_by_us else ""
    return f"{signal.Signals(end.signal).name}{by}: {end.cause.value}"


def what_is_left(run_id: str, ps: MemberView, console: Console) -> list[str]:
    """Looks for the run's processes in /proc, whoever started them, and for the ps's port."""
    left = left_behind(run_id)
    console.print(f"processes of that run left behind: {len(left)}")
    if ps.endpoint is None:
        return [*left, "ps:0 had no address"]
    refused = why_not_free(ps.endpoint)
    console.print(f"port {ps.endpoint.port} of ps:0 is {refused or 'free'}")
    return left + ([f"port {ps.endpoint.port} is {refused}"] if refused else [])


def why_not_free(endpoint: Endpoint) -> str:
    """Listens there for a moment; "" when that works."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        # Old connections in TIME_WAIT do not count; whoever still holds or serves the port does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((endpoint.host, endpoint.port))
            sock.listen()
        except OSError as error:
            return f"not free: {error}"
    return ""
