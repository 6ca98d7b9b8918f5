"""What dies on an executor: the member, its task, the daemon, the JVM."""

from __future__ import annotations

import signal

from tests.chaos import memory
from tests.chaos.acts import gate, in_driver, in_turn, kill, stop_then, terminate
from tests.chaos.driving import cancel_tag
from tests.chaos.programs import SEEN
from tests.chaos.row import SLOW, Row

MEMBERS = (
    Row("member-killed", "member: SIGKILL", kill("member"), repeats=10),
    Row("member-terminated", "member: SIGTERM, its helpers ignore it", terminate("member"),
        program="obedient", repeats=3),
    Row("member-crashed", "member: SIGSEGV", kill("member", number=signal.SIGSEGV),
        program="stubborn", repeats=3),
    Row("member-raises", "main_fun raises, helpers stay", gate("raise"), program="gated",
        repeats=3),
    Row("member-returns", "main_fun returns, helpers stay", gate("return"), program="gated",
        repeats=10),
    Row("member-exits", "main_fun calls os._exit, helpers stay", gate("exit"), program="gated",
        repeats=3),
    Row("member-out-of-memory", "member: killed in its memory cgroup", gate("eat"),
        program="gated", prepare=memory.confine("member"), obstacle=memory.obstacle,
        happened=memory.nobody_was_killed, repeats=2),
)  # fmt: skip

TASKS = (
    Row("worker-killed", "Python worker: SIGKILL", kill("worker")),
    Row("worker-killed-with-grace", "Python worker: SIGKILL", kill("worker"), grace=1.0,
        repeats=3),
    Row("worker-killed-polite", "Python worker: SIGKILL; the member leaves when told",
        kill("worker"), program="polite", grace=5.0, repeats=3),
    Row("worker-terminated", "Python worker: SIGTERM", terminate("worker"), repeats=3),
    Row("worker-killed-beside-another-run", "Python worker: SIGKILL; another run's lives",
        kill("worker"), beside=True, repeats=3),
    Row("worker-killed-of-two", "Python worker of one of two members: SIGKILL", kill("worker"),
        roles={"worker": 2}, repeats=3),
    Row("worker-and-member-killed", "Python worker and member at once: SIGKILL",
        kill("worker", "member"), repeats=3),
    Row("member-hangs-worker-killed", "member: SIGSTOP; Python worker: SIGKILL",
        stop_then(("member",), kill("worker")), grace=1.0, repeats=3),
)  # fmt: skip

EXECUTORS = (
    Row("daemon-killed", "pyspark.daemon: SIGKILL", kill("daemon"), repeats=3),
    Row("daemon-terminated", "pyspark.daemon: SIGTERM", terminate("daemon"), repeats=3),
    Row("daemon-killed-then-cancel", "pyspark.daemon: SIGKILL; the job is cancelled",
        in_turn(kill("daemon"), in_driver(cancel_tag)), repeats=2),
    Row("daemon-hangs-worker-killed", "pyspark.daemon: SIGSTOP; Python worker: SIGKILL",
        stop_then(("daemon",), kill("worker")), repeats=SLOW, spoils="application"),
    Row("executor-killed", "executor JVM: SIGKILL", kill("executor"), repeats=3),
    Row("executor-killed-with-grace", "executor JVM: SIGKILL", kill("executor"), grace=1.0,
        repeats=2),
    Row("executor-terminated", "executor JVM: SIGTERM", terminate("executor"), repeats=2),
    Row("executor-hangs-then-killed", "executor JVM: SIGSTOP, then SIGKILL",
        stop_then(("executor",), kill("executor")), repeats=2),
    Row("executor-killed-beside-another-run", "executor JVM: SIGKILL; another run's lives",
        kill("executor"), beside=True, repeats=2),
    Row("worker-daemon-and-executor-killed", "Python worker, daemon and executor JVM at once: "
        "SIGKILL", kill("worker", "daemon", "executor"), repeats=2),
    Row("executor-out-of-memory", "executor's whole tree in one memory cgroup: somebody is killed",
        gate("eat"), program="gated", prepare=memory.confine("executor", trees=True),
        obstacle=memory.obstacle, happened=memory.nobody_was_killed, repeats=SLOW,
        spoils="application"),
)  # fmt: skip

EXECUTOR_ANCHOR = (
    Row("detached-member-killed", "member: SIGKILL", kill("member"), anchor="executor", repeats=3),
    Row("detached-agent-killed", "agent: SIGKILL", kill("agent"), anchor="executor", repeats=3),
    Row("detached-sentinel-killed", "sentinel: SIGKILL", kill("sentinel"), anchor="executor",
        helpers=SEEN, repeats=3),
    Row("detached-executor-killed", "executor JVM: SIGKILL", kill("executor"), anchor="executor",
        repeats=3),
    Row("detached-executor-killed-with-grace", "executor JVM: SIGKILL", kill("executor"),
        anchor="executor", grace=1.0, repeats=2),
    Row("detached-executor-terminated", "executor JVM: SIGTERM", terminate("executor"),
        anchor="executor", repeats=2),
)  # fmt: skip
