"""`tflease`, the command line: versions, help, the doctor as a whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import coordinator
from coordinator.cli import app, probe
from coordinator.cli.probe import ProbeFailed

ROOT = Path(__file__).parents[2]

HEAVY = ("google.protobuf", "grpc", "pyarrow", "pyspark", "tensorflow")


def tflease(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user's shell runs it, with nothing that this process has loaded."""
    return subprocess.run(
        [sys.executable, "-m", "coordinator.cli", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_starting_it_loads_nothing_heavy() -> None:
    code = "import coordinator.cli, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))


def test_the_console_script_is_this() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"tflease": "coordinator.cli:main"}


def test_help_of_the_module_lists_every_command() -> None:
    """`python -m coordinator.cli`, for where the console script is not on the PATH."""
    shown = tflease("--help")
    assert shown.returncode == 0, shown.stderr
    words = shown.stdout.split()
    commands = {"doctor", "leases", "logs", "reap", "runs", "serve", "status", "stop", "version"}
    assert commands <= set(words)
    assert "--install-completion" in words


def test_version_names_everything_that_matters() -> None:
    lines = CliRunner().invoke(app, ["version"]).stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["tflease", "Python", "grpcio", "protobuf", "pyspark", "tensorflow"]
    assert lines[0].split()[1] == coordinator.__version__
    assert re.search(r"\((upb|cpp|python)", lines[3])


def test_version_is_also_an_option() -> None:
    assert (
        CliRunner().invoke(app, ["--version"]).stdout == CliRunner().invoke(app, ["version"]).stdout
    )


def test_version_as_json() -> None:
    found = json.loads(CliRunner().invoke(app, ["version", "--json"]).stdout)
    assert found["tflease"] == coordinator.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("version", "-h"),
        ("doctor", "--help"),
        ("serve", "--help"),
        ("status", "--help"),
        ("stop", "--help"),
        ("logs", "--help"),
        ("leases", "--help"),
        ("leases", "clear", "--help"),
        ("reap", "--help"),
    ],
)
def test_help(arguments: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, list(arguments))
    assert "Usage: " in shown.output
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("command", ["runs", "status", "stop", "logs", "leases", "doctor", "reap"])
def test_help_has_the_exit_codes(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert "exit code" in shown.output.lower()


def test_an_unknown_command_is_refused_by_name() -> None:
    refused = CliRunner().invoke(app, ["dcotor"])
    assert refused.exit_code == 2
    assert "dcotor" in refused.output


# --- the doctor as a whole ------------------------------------------------------------------------


@pytest.mark.slow
def test_doctor_exits_with_1_exactly_when_a_line_has_failed() -> None:
    done = tflease("doctor", "--json", PYSPARK_PYTHON=sys.executable)
    found = json.loads(done.stdout)
    failures = [each for each in found["checks"] if each["status"] == "failed"]
    assert found["ok"] is (not failures)
    assert done.returncode == (1 if failures else 0), done.stdout
    assert all(each["advice"] for each in failures)


@pytest.mark.slow
def test_doctor_says_what_to_do_about_a_missing_java(tmp_path: Path) -> None:
    done = tflease("doctor", PYSPARK_PYTHON=sys.executable, JAVA_HOME=str(tmp_path))
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["Java"]]
    assert line.startswith("failed")
    assert "-> install Java 17 or newer" in done.stdout


@pytest.mark.slow
def test_doctor_finds_this_machines_set_up_good() -> None:
    """What the tests themselves run on; Java is another matter, and has its own tests."""
    done = tflease("doctor", "--json", PYSPARK_PYTHON=sys.executable)
    lines = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert lines["executors' Python"]["status"] == "ok", lines
    assert lines["tensorflow"]["status"] == "ok", lines
    assert lines["kernel"]["status"] == "ok", lines


# --- the probe ------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed, match="cannot be run"):
        probe.ask(str(tmp_path / "python"))


@pytest.mark.slow
def test_the_probe_reports_every_import_that_fails() -> None:
    found = probe.ask(sys.executable, "json", "no_such_module")
    assert set(found.errors) == {"no_such_module"}
    assert "ModuleNotFoundError" in found.errors["no_such_module"]
