"""Who is above a Spark task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from executor_agent.processes import my_identity
from executor_agent.spark_chain import spark_chain


def test_outside_of_spark_the_chain_is_the_task_alone() -> None:
    assert spark_chain() == {"task": my_identity()}


# A JVM, a daemon and a worker that is its fork, as far as names and command lines go.
CHAIN = """
import json, os, sys
sys.path.insert(0, {root!r})
if os.fork() == 0:
    from executor_agent.spark_chain import spark_chain
    chain = {{name: who.pid for name, who in spark_chain().items()}}
    print(json.dumps([chain, os.getpid(), os.getppid(), int(sys.argv[-1])]), flush=True)
    os._exit(0)
os.wait()
"""


def test_in_a_python_worker_the_chain_has_daemon_and_executor(tmp_path: Path) -> None:
    """O3: each of the three is watched, because each can die alone."""
    package = tmp_path / "pyspark"
    package.mkdir()
    (package / "__init__.py").touch()
    root = str(Path(__file__).parents[2])
    (package / "daemon.py").write_text(CHAIN.format(root=root))
    java = tmp_path / "java"
    java.write_text(f'#!/bin/sh\n"{sys.executable}" -m pyspark.daemon pyspark.worker $$\n:\n')
    java.chmod(0o755)
    done = subprocess.run([java], cwd=tmp_path, capture_output=True, text=True, check=True)
    chain, worker, daemon, jvm = json.loads(done.stdout)
    assert chain == {"task": worker, "daemon": daemon, "executor": jvm}
