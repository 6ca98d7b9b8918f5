"""What the driver does, and what becomes of it."""

from __future__ import annotations

from tests.chaos.acts import in_driver, kill
from tests.chaos.driving import (
    cancel_all,
    cancel_group,
    cancel_tag,
    shut_down,
    stop,
    stop_session,
)
from tests.chaos.row import SLOW, Row

CANCELS = (
    Row("cancel-tag", "the job's tag is cancelled", in_driver(cancel_tag), repeats=10),
    Row("cancel-tag-with-grace", "the job's tag is cancelled", in_driver(cancel_tag), grace=1.0,
        repeats=2),
    Row("cancel-group", "the user's job group is cancelled", in_driver(cancel_group), repeats=2),
    Row("cancel-all", "all jobs are cancelled", in_driver(cancel_all), repeats=2),
    Row("stop", "cluster.stop()", in_driver(stop), repeats=10),
    Row("stop-with-grace", "cluster.stop()", in_driver(stop), grace=1.0, repeats=2),
    Row("stop-polite", "cluster.stop(); the member leaves when told", in_driver(stop),
        program="polite", grace=5.0, repeats=2),
    Row("shutdown", "cluster.shutdown()", in_driver(shut_down), repeats=3),
    Row("shutdown-of-two", "cluster.shutdown(), two members", in_driver(shut_down),
        roles={"worker": 2}, grace=1.0, repeats=2),
    Row("detached-stop", "cluster.stop()", in_driver(stop), anchor="executor", repeats=2),
    Row("detached-shutdown", "cluster.shutdown()", in_driver(shut_down), anchor="executor",
        repeats=2),
)  # fmt: skip

DRIVER_ENDS = (
    Row("session-stopped", "spark.stop() in mid-run", in_driver(stop_session), repeats=SLOW,
        spoils="application"),
    Row("driver-killed", "driver's Python: SIGKILL", kill("driver"), also=("coordinator",),
        repeats=SLOW, spoils="application"),
    Row("driver-jvm-killed", "driver's JVM: SIGKILL", kill("driver JVM"), repeats=SLOW,
        spoils="application"),
    Row("detached-driver-killed", "driver's Python: SIGKILL", kill("driver"),
        also=("coordinator",), anchor="executor", repeats=1, spoils="application"),
    Row("driver-and-coordinator-killed", "driver's Python and coordinator at once: SIGKILL",
        kill("driver", "coordinator"), also=("coordinator",), repeats=1, spoils="application"),
    Row("whole-application-killed", "driver, its JVM, executor, daemon and Python worker at once: "
        "SIGKILL", kill("driver", "driver JVM", "executor", "daemon", "worker"),
        also=("coordinator",), repeats=SLOW, spoils="application"),
)  # fmt: skip
