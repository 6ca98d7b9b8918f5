"""The checked-in stubs are what proto/ generates. `make proto-check` does the work; this runs it.

It needs the network once, to make .venv-proto.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "coordinator" / "v1"


def proto_check(stubs: Path) -> subprocess.CompletedProcess[str]:
    # A make around this test must not pass its options on.
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    command = ["make", "--no-print-directory", "proto-check", f"STUBS={stubs}"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def _protoc() -> None:
    """An environment that cannot be made is another failure than stubs that are stale."""
    command = ["make", "--no-print-directory", ".venv-proto/.installed"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.fail(
            f"no environment for protoc (needs the network once):\n{made.stderr}", pytrace=False
        )


@pytest.mark.slow
def test_the_stubs_are_fresh() -> None:
    checked = proto_check(STUBS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_an_edited_stub_is_noticed(tmp_path: Path) -> None:
    edited = tmp_path / "v1"
    shutil.copytree(STUBS, edited, ignore=shutil.ignore_patterns("__pycache__"))
    with (edited / "__init__.py").open("a") as file:
        file.write("# edited\n")
    checked = proto_check(edited)
    assert checked.returncode != 0
    assert "# edited" in checked.stdout
    assert "make proto" in checked.stderr
