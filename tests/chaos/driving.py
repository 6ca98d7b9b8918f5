"""What the matrix has an application's driver do. These functions run in that process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle

from coordinator import Roles, TFCluster
from tests.chaos import programs

# Executors have no tests: what a program uses of its module goes along.
cloudpickle.register_pickle_by_value(programs)

GROUP = "the user's own job group"

_clusters: dict[str, TFCluster] = {}


def begin(spark: Any, program: str, args: dict[str, Any], plan: dict[str, Any]) -> str:
    """Starts a run of this program; its name, once ``main_fun`` was entered everywhere."""
    context = spark.sparkContext
    context.setJobGroup(GROUP, "what the user runs in this cell")
    try:
        cluster = TFCluster.run(
            spark,
            programs.PROGRAMS[program],
            args,
            roles=Roles(**plan["roles"]),
            anchor=plan["anchor"],
            grace=dict.fromkeys(plan["roles"], plan["grace"]),
            preload=("tensorflow",) if plan["tensorflow"] else (),
            progress=False,
            reservation_timeout=120.0,
            name=args["tag"],
        )
    except Exception as error:  # not all of them can be pickled
        raise RuntimeError(f"the run did not begin: {type(error).__name__}: {error}") from None
    _clusters[cluster.run_id] = cluster
    return cluster.run_id


def end(spark: Any, run_id: str) -> str:
    """Shuts the run down, whatever has become of it; what the driver was told of its end."""
    cluster = _clusters.pop(run_id)
    told = []
    for ask in (lambda: cluster.wait(0.1), cluster.shutdown):
        try:
            ask()
        except TimeoutError:
            pass
        except Exception as error:
            told.append(first_line(error))
    return "; ".join(dict.fromkeys(told))


def shut_down(spark: Any, run_id: str) -> None:
    _clusters[run_id].shutdown()


def stop(spark: Any, run_id: str) -> None:
    _clusters[run_id].stop()


def cancel_group(spark: Any, run_id: str) -> None:
    spark.sparkContext.cancelJobGroup(GROUP)


def cancel_all(spark: Any, run_id: str) -> None:
    spark.sparkContext.cancelAllJobs()


def cancel_tag(spark: Any, run_id: str) -> None:
    spark.sparkContext.cancelJobsWithTag(f"tflease-{run_id}")


def stop_session(spark: Any, run_id: str) -> None:
    spark.stop()


def executors(spark: Any) -> int:
    """How many there are now."""
    return len(spark.sparkContext.statusTracker().getExecutorInfos()) - 1  # the driver is one


def is_idle(spark: Any) -> bool:
    """Whether Spark runs nothing."""
    return not spark.sparkContext.statusTracker().getActiveJobsIds()


def work_folder(spark: Any) -> str:
    """Where local-cluster keeps the files of this application's executors."""
    import pyspark

    return str(Path(pyspark.__file__).parent / "work" / spark.sparkContext.applicationId)


def first_line(error: BaseException) -> str:
    """What it is, in one line; a timeout has no text."""
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}"
