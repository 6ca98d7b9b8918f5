"""What dies of the supervision itself, and what only the sweep closes.

Where the sentinel is killed, the hidden helper is the known gap: those rows go without it, and the
gap has rows of its own.
"""

from __future__ import annotations

from tests.chaos.acts import in_driver, kill, resume, stop_then, terminate
from tests.chaos.driving import shut_down
from tests.chaos.programs import ALL, SEEN
from tests.chaos.row import Row

SUPERVISORS = (
    Row("sentinel-killed", "sentinel: SIGKILL", kill("sentinel"), helpers=SEEN),
    Row("sentinel-killed-with-grace", "sentinel: SIGKILL", kill("sentinel"), helpers=SEEN,
        grace=1.0, repeats=3),
    Row("sentinel-terminated", "sentinel: SIGTERM", terminate("sentinel"), repeats=3),
    Row("agent-killed", "agent: SIGKILL", kill("agent")),
    Row("agent-killed-with-grace", "agent: SIGKILL", kill("agent"), grace=1.0, repeats=3),
    Row("agent-terminated", "agent: SIGTERM", terminate("agent"), repeats=3),
    Row("coordinator-killed", "coordinator: SIGKILL", kill("coordinator"), repeats=3),
    Row("coordinator-terminated", "coordinator: SIGTERM", terminate("coordinator"), repeats=3),
)  # fmt: skip

PAIRS = (
    Row("agent-and-coordinator-killed", "agent and coordinator at once: SIGKILL",
        kill("agent", "coordinator"), repeats=3),
    Row("sentinel-and-worker-killed", "sentinel and Python worker at once: SIGKILL",
        kill("sentinel", "worker"), helpers=SEEN, repeats=3),
    Row("sentinel-and-agent-killed", "sentinel and agent at once: SIGKILL",
        kill("sentinel", "agent"), helpers=SEEN, repeats=3),
    Row("agent-and-worker-killed", "agent and Python worker at once: SIGKILL",
        kill("agent", "worker"), repeats=3),
    Row("sentinel-and-member-killed", "sentinel and member at once: SIGKILL",
        kill("sentinel", "member"), helpers=SEEN, repeats=3),
    Row("sentinel-and-executor-killed", "sentinel and executor JVM at once: SIGKILL",
        kill("sentinel", "executor"), helpers=SEEN, repeats=2),
)  # fmt: skip

HANGS = (
    Row("agent-hangs-worker-killed", "agent: SIGSTOP; Python worker: SIGKILL",
        stop_then(("agent",), kill("worker")), repeats=2),
    Row("agent-hangs-shutdown", "agent: SIGSTOP; cluster.shutdown()",
        stop_then(("agent",), in_driver(shut_down)), repeats=1, limit=60.0),
    Row("sentinel-hangs-then-killed", "sentinel: SIGSTOP, then SIGKILL",
        stop_then(("sentinel",), kill("sentinel")), helpers=SEEN, repeats=2),
    Row("sentinel-hangs-shutdown", "sentinel: SIGSTOP; cluster.shutdown()",
        stop_then(("sentinel",), in_driver(shut_down)), helpers=SEEN, repeats=1, limit=60.0),
    Row("sentinel-hangs-worker-killed-thawed", "sentinel: SIGSTOP; Python worker: SIGKILL; "
        "sentinel: SIGCONT", stop_then(("sentinel",), kill("worker"), resume("sentinel")),
        repeats=2),
    Row("sentinel-hangs-worker-killed", "sentinel: SIGSTOP; Python worker: SIGKILL",
        stop_then(("sentinel",), kill("worker")), helpers=SEEN, repeats=2),
    Row("sentinel-hangs-worker-killed-with-grace", "sentinel: SIGSTOP; Python worker: SIGKILL",
        stop_then(("sentinel",), kill("worker")), helpers=SEEN, program="stuck", grace=1.0,
        repeats=2),
    Row("sentinel-and-worker-hang", "sentinel and Python worker: SIGSTOP; cluster.shutdown()",
        stop_then(("sentinel", "worker"), in_driver(shut_down)), helpers=SEEN, limit=60.0,
        repeats=1, spoils="application"),
)  # fmt: skip

SWEEPS = (
    Row("sentinel-agent-and-worker-killed", "sentinel, agent and Python worker at once: SIGKILL",
        kill("sentinel", "agent", "worker"), helpers=SEEN, expects="sweep", sweep="agent",
        repeats=1),
    Row("sentinel-agent-and-worker-killed-reap", "sentinel, agent and Python worker at once: "
        "SIGKILL", kill("sentinel", "agent", "worker"), helpers=SEEN, expects="sweep",
        sweep="reap", repeats=1),
    Row("detached-sentinel-and-agent-killed", "sentinel and agent at once: SIGKILL",
        kill("sentinel", "agent"), helpers=SEEN, anchor="executor", expects="sweep",
        sweep="agent", repeats=1),
    Row("everything-killed", "driver, its JVM, executor, daemon, Python worker, coordinator, "
        "sentinel and agent at once: SIGKILL",
        kill("driver", "driver JVM", "executor", "daemon", "worker", "coordinator", "sentinel",
             "agent"), helpers=SEEN, expects="sweep", sweep="agent", repeats=1,
        spoils="application"),
    Row("everything-killed-reap", "driver, its JVM, executor, daemon, Python worker, coordinator, "
        "sentinel and agent at once: SIGKILL",
        kill("driver", "driver JVM", "executor", "daemon", "worker", "coordinator", "sentinel",
             "agent"), helpers=SEEN, expects="sweep", sweep="reap", repeats=1,
        spoils="application"),
)  # fmt: skip

GAP = (
    Row("known-gap", "sentinel, agent and Python worker at once: SIGKILL; a helper is hidden",
        kill("sentinel", "agent", "worker"), helpers=ALL, expects="gap", sweep="agent",
        repeats=1),
)  # fmt: skip
