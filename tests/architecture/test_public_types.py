"""What the docstrings of the public constructors offer is also what type checkers let through."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from dataclasses import replace

from coordinator.core.causes import Cause
from coordinator.core.policy import Action, RestartPolicy

answers: dict[str, str] = {"user exception": "restart"}
policy = RestartPolicy(on=answers)
policy = RestartPolicy(max_restarts=3, on={"user exception": "restart"}, backoff=2)
policy = RestartPolicy(on={Cause.USER_EXCEPTION: Action.RESTART})
action: Action | None = replace(policy, alone=False).on.get(Cause.STALLED)
policy = RestartPolicy(on={1: "restart"})  # type: ignore[arg-type]
"""
"""With its own counterexample: mypy complains of an ignored line where there is nothing wrong."""


CORE = ("__init__", "policy", "causes", "errors")
"""What is needed of the package: reading all of it takes mypy ten times as long."""


@pytest.mark.slow
def test_restart_policies_may_be_written_with_names(tmp_path: Path) -> None:
    core = tmp_path / "coordinator" / "core"
    core.mkdir(parents=True)
    (tmp_path / "coordinator" / "__init__.py").touch()
    for name in CORE:
        shutil.copy(ROOT / "coordinator" / "core" / f"{name}.py", core)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--no-error-summary",
            "--ignore-missing-imports",
            "-m",
            "program",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
