"""What is above a Spark Python worker, and who a process is by its command line. The only importer
of psutil, which the sentinel does without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import psutil

from executor_agent.core.supervision import AnchorName
from executor_agent.processes import ProcessIdentity, identity_of, my_identity


def spark_chain() -> dict[AnchorName, ProcessIdentity]:
    """The processes whose death ends this Spark task: itself, its daemon, its executor's JVM.

    To be called in the Spark Python worker. Outside of Spark, or where a link does not exist (no
    daemon; on `local[n]` the JVM is the driver's), what exists is returned; the task always is.
    """
    chain: dict[AnchorName, ProcessIdentity] = {"task": my_identity()}
    # Workers are forks of the daemon, so that both have its command line.
    if not runs_module(command_line(os.getpid()), (".daemon", ".worker")):
        return chain
    ancestors = psutil.Process().parents()
    java = next((each for each in ancestors if _name(each) == "java"), None)
    daemon = ancestors[0] if ancestors else None
    if daemon is not None and runs_module(command_line(daemon.pid), (".daemon",)):
        _link(chain, "daemon", daemon)
    if java is not None:
        _link(chain, "executor", java)
    return chain


def _link(
    chain: dict[AnchorName, ProcessIdentity], name: AnchorName, found: psutil.Process
) -> None:
    identity = identity_of(found.pid)
    # Before that, psutil makes sure that the number is still the same process's.
    if identity is not None and found.is_running():
        chain[name] = identity


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it is gone, or not ours to look at."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def runs_module(arguments: Sequence[str], endings: tuple[str, ...]) -> bool:
    """`python -m pyspark.daemon pyspark.worker` runs the first; Spark's conf can replace it, so
    that its end has to do."""
    return any(flag == "-m" and module.endswith(endings) for flag, module in pairwise(arguments))
