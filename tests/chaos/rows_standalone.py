"""On a standalone cluster of two hosts: its worker daemons, decommissioning, speculation."""

from __future__ import annotations

import signal

from tests.chaos import proc
from tests.chaos.acts import in_driver, kill
from tests.chaos.driving import cancel_tag
from tests.chaos.proc import Entry
from tests.chaos.row import SLOW, Row
from tests.chaos.rows_tensorflow import TENSORFLOW_STANDALONE
from tests.chaos.scene import Scene
from tests.chaos.stage import STANDALONE
from tests.spark.helpers import eventually

_DECOMMISSION = {
    "spark.decommission.enabled": "true",
    # A member never ends by itself, which is what a decommissioned executor waits for.
    "spark.executor.decommission.forceKillTimeout": "2s",
}

_SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    # Without it a stage of one task, such as a member's, is never speculated on.
    "spark.speculation.task.duration.threshold": "1s",
}


def find_duplicate(scene: Scene) -> None:
    """Waits for the speculative attempt's agent; what it is started with must go as well."""

    def found() -> Entry | None:
        for entry in proc.scan().values():
            ours = entry.marker.startswith(f"{scene.run_id}/") and entry.process not in scene.tree
            if ours and "executor_agent.bootstrap" in entry.command:
                return entry
        return None

    entry = eventually(found, "a speculative attempt")
    seen = proc.scan()
    sentinel = seen[entry.parent]
    for each in (sentinel, *proc.below(seen, sentinel.pid)):
        scene.tree[each.process] = "the duplicate's"


STANDALONE_ROWS = (
    Row("standalone-worker-killed", "Python worker: SIGKILL", kill("worker"),
        topology=STANDALONE, repeats=3),
    Row("standalone-cancelled", "the job's tag is cancelled", in_driver(cancel_tag),
        topology=STANDALONE, repeats=2),
    Row("standalone-daemon-killed", "pyspark.daemon: SIGKILL", kill("daemon"),
        topology=STANDALONE, repeats=2),
    Row("standalone-executor-killed", "executor JVM: SIGKILL", kill("executor"),
        topology=STANDALONE, repeats=2),
    Row("standalone-detached-executor-killed", "executor JVM: SIGKILL", kill("executor"),
        anchor="executor", topology=STANDALONE, repeats=2),
    Row("standalone-two-hosts-worker-killed", "Python worker of one of two members: SIGKILL",
        kill("worker"), roles={"worker": 2}, grace=1.0, topology=STANDALONE, repeats=2),
    *TENSORFLOW_STANDALONE,
    Row("standalone-driver-killed", "driver's Python: SIGKILL", kill("driver"),
        also=("coordinator",), topology=STANDALONE, repeats=1, spoils="application"),
    Row("standalone-decommissioned", "executor: decommissioned (SIGPWR), killed by Spark 2 s later",
        kill("executor", number=signal.SIGPWR), conf=_DECOMMISSION, topology=STANDALONE,
        limit=60.0, repeats=1,
        happened=lambda _, gone: "" if gone is None or gone >= 1500 else "the JVM just died"),
    Row("standalone-speculative-cancelled", "the job's tag is cancelled; there is a speculative "
        "duplicate", in_driver(cancel_tag), conf=_SPECULATION, prepare=find_duplicate,
        topology=STANDALONE, repeats=SLOW),
    Row("standalone-speculative-worker-killed", "Python worker of the first attempt: SIGKILL; "
        "there is a speculative duplicate", kill("worker"), conf=_SPECULATION,
        prepare=find_duplicate, topology=STANDALONE, repeats=SLOW),
    Row("standalone-spark-worker-killed", "standalone worker daemon: SIGKILL",
        kill("Spark worker"), topology=STANDALONE, limit=60.0, repeats=1, spoils="cluster"),
    Row("standalone-whole-host-killed", "worker daemon, executor, daemon, Python worker and driver "
        "at once: SIGKILL", kill("Spark worker", "executor", "daemon", "worker", "driver"),
        also=("coordinator",), topology=STANDALONE, repeats=1, spoils="cluster"),
)  # fmt: skip
