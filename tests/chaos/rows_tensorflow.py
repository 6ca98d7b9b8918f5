"""The same with real TensorFlow in the member's process."""

from __future__ import annotations

from tests.chaos.acts import in_driver, kill
from tests.chaos.driving import cancel_tag, shut_down, stop_session
from tests.chaos.programs import SEEN
from tests.chaos.row import Row
from tests.chaos.stage import STANDALONE

_TWO = {"worker": 2}

TENSORFLOW_ROWS = (
    Row("tensorflow-killed", "member: SIGKILL", kill("member"), program="server", repeats=2),
    Row("tensorflow-worker-killed", "Python worker: SIGKILL", kill("worker"), program="server",
        repeats=2),
    Row("tensorflow-worker-killed-with-grace", "Python worker: SIGKILL", kill("worker"),
        program="server", grace=1.0, repeats=2),
    Row("tensorflow-cancelled", "the job's tag is cancelled", in_driver(cancel_tag),
        program="server", repeats=2),
    Row("tensorflow-shutdown", "cluster.shutdown()", in_driver(shut_down), program="server",
        grace=1.0, repeats=2),
    Row("tensorflow-sentinel-killed", "sentinel: SIGKILL", kill("sentinel"), program="server",
        helpers=SEEN, repeats=2),
    Row("mirrored-worker-killed", "Python worker of one of two members: SIGKILL", kill("worker"),
        program="mirrored", roles=_TWO, repeats=2),
    Row("mirrored-executor-killed", "executor JVM of one of two members: SIGKILL",
        kill("executor"), program="mirrored", roles=_TWO, repeats=2),
)  # fmt: skip

TENSORFLOW_ENDS = (
    Row("tensorflow-session-stopped", "spark.stop() in mid-run", in_driver(stop_session),
        program="server", repeats=1, spoils="application"),
)  # fmt: skip

TENSORFLOW_STANDALONE = (
    Row("standalone-mirrored-executor-killed", "executor JVM of one of two members: SIGKILL",
        kill("executor"), program="mirrored", roles=_TWO, topology=STANDALONE, repeats=2),
)  # fmt: skip
