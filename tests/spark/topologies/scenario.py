"""What the tests of topologies share: a run as an application's driver plays it, and where Spark
has put what it started."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from coordinator import Roles, TFCluster
from coordinator.core.model import RunView
from tests.spark.helpers import command, marked

# As a test's own main_fun, what it uses of this module is sent by value: executors have no tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def train(
    spark: Any, main_fun: Any, args: Any, roles: Roles, notes: Path | None = None, **options: Any
) -> dict[str, Any]:
    """One whole run: what was returned, which incarnations held a slot, and what was left.

    ``notes``: a file that always has the latest picture of the run, for who looks on.
    """
    holders: set[tuple[str, str]] = set()

    def see(run: RunView) -> None:
        holders.update((str(m.id), str(m.incarnation)) for m in run.members if m.incarnation)
        if notes is not None:
            _write(notes, picture_of(run))

    options = {"preload": (), "reservation_timeout": 90.0, "progress": see, **options}
    with TFCluster.run(spark, main_fun, args, roles=roles, **options) as cluster:
        result = cluster.wait(90)
    return {
        "returned": dict(result.returned),
        "holders": sorted(holders),
        "left": [command(process) for process in marked(cluster.run_id)],
    }


def picture_of(run: RunView) -> dict[str, Any]:
    """By member its phase and its incarnation; and the run's name."""
    members = {str(m.id): (m.phase.value, str(m.incarnation)) for m in run.members}
    return {"run_id": str(run.run_id), "members": members}


def _write(path: Path, what: Any) -> None:
    """Whole, or not yet there."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(what))
    draft.replace(path)


def whereabouts(ctx: Any) -> dict[str, Any]:
    """In a member: who and where it is."""
    return {
        "member": f"{ctx.job_name}:{ctx.task_index}",
        "pid": os.getpid(),
        "marker": os.environ["TFLEASE_MEMBER"],
        "executor_id": ctx.executor_id,
        "address": ctx.cluster_spec[ctx.job_name][ctx.task_index],
    }


def executor_host(pid: int) -> str:
    """The address of the executor that a process of a member lives below, as Spark calls it."""
    for parent in psutil.Process(pid).parents():
        for flag, value in itertools.pairwise(command(parent).split()):
            if flag == "--hostname":
                return value
    raise AssertionError(f"process {pid} has no executor above it")
