"""The doctor's lines about the software: Java, packages, the executors' Python."""

from __future__ import annotations

import json
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from coordinator.check import RANGES
from coordinator.cli import probe
from coordinator.cli.checks import Check, Status, host, stack
from coordinator.cli.probe import Interpreter
from coordinator.core.model import VERSION

ROOT = Path(__file__).parents[2]

DRIVER = Interpreter(
    python="3.11.7",
    executable="/opt/driver/python",
    versions={
        "grpcio": "1.85.1",
        "protobuf": "7.36.2",
        "pyspark": "4.3.0",
        "tensorflow": "2.21.0",
        "tflease": "0.1.0",
    },
    protobuf_implementation="upb",
)


def program(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def said(check: Check) -> str:
    """What the line must not lack: when it has failed, what to do."""
    assert check.status is not Status.FAILED or check.advice
    return f"{check.found} -> {check.advice}"


FAKE_JAVA = """
case "$*" in
*--list-modules*) echo java.base@{version}; {modules} ;;
*) echo "    java.specification.version = {specification}" >&2
   echo "    java.version = {version}" >&2 ;;
esac
"""


def fake_java(home: Path, version: str, specification: str, modules: str = ":") -> dict[str, str]:
    body = FAKE_JAVA.format(version=version, specification=specification, modules=modules)
    program(home / "bin/java", body)
    return {"JAVA_HOME": str(home)}


@pytest.mark.parametrize(
    "version, specification", [("1.8.0_402", "1.8"), ("11.0.22", "11"), ("16", "16")]
)
def test_a_java_that_is_too_old(tmp_path: Path, version: str, specification: str) -> None:
    old = stack.java(fake_java(tmp_path, version, specification))
    assert old.status is Status.FAILED
    assert version in said(old)


def test_a_trimmed_java(tmp_path: Path) -> None:
    trimmed = stack.java(fake_java(tmp_path, "17.0.9", "17"))
    assert trimmed.status is Status.FAILED
    assert "jdk.incubator.vector" in said(trimmed)


def test_a_java_that_will_do(tmp_path: Path) -> None:
    environment = fake_java(tmp_path, "21.0.2", "21", "echo jdk.incubator.vector@21.0.2")
    assert stack.java(environment).status is Status.OK
    on_path = {"PATH": f"{tmp_path}/bin"}
    assert "from PATH" in said(stack.java(on_path))


def test_no_java(tmp_path: Path) -> None:
    assert stack.java({"PATH": str(tmp_path)}).status is Status.FAILED
    assert stack.java({"JAVA_HOME": str(tmp_path)}).status is Status.FAILED


def without(name: str, version: str | None = None) -> Interpreter:
    versions = {key: value for key, value in DRIVER.versions.items() if key != name}
    if version is not None:
        versions[name] = version
    return Interpreter(DRIVER.python, DRIVER.executable, versions)


@pytest.mark.parametrize(
    "version, status",
    [
        (None, Status.FAILED),
        ("2.19.1", Status.FAILED),
        ("2.20.0", Status.OK),
        ("2.22.0rc1", Status.OK),
        ("3.0.0", Status.FAILED),
    ],
)
def test_tensorflow_must_be_there_and_in_range(version: str | None, status: Status) -> None:
    check = stack.tensorflow(without("tensorflow", version))
    assert check.status is status
    assert "tflease[tensorflow]" in check.advice or status is Status.OK


@pytest.mark.parametrize(
    "version, status", [("6.31.0", "failed"), ("6.31.1", "ok"), ("8", "failed")]
)
def test_protobufs_window(version: str, status: str) -> None:
    checks = {each.name: each for each in stack.libraries(without("protobuf", version))}
    assert checks["protobuf"].status.value == status


def test_pyspark_that_cannot_be_imported() -> None:
    broken = Interpreter("3.11.7", "/opt/python", {"pyspark": "4.3.0"}, {"pyspark": "ImportError"})
    assert "tflease[spark]" in said(stack.pyspark(broken))
    assert stack.pyspark(DRIVER).status is Status.OK


@pytest.mark.parametrize("how, status", [("upb", "ok"), ("python", "note"), ("", "failed")])
def test_the_slow_protobuf_is_named(how: str, status: str) -> None:
    interpreter = Interpreter("3.11.7", "/opt/python", protobuf_implementation=how)
    assert stack.protobuf_implementation(interpreter).status.value == status


def test_the_ranges_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = {*project["dependencies"], *chain.from_iterable(extras)}
    for name, (first, before) in RANGES.items():
        requirement = f"{name}>={first}" + (f",<{before}" if before else "")
        assert requirement in wanted
    assert project["requires-python"] == ">=" + ".".join(map(str, host.OLDEST_PYTHON))


# --- its lines: the executors' Python -------------------------------------------------------------


@pytest.fixture
def driver() -> Interpreter:
    return probe.this_interpreter()


@pytest.mark.slow
def test_the_executors_python_is_ours(driver: Interpreter) -> None:
    check, found = stack.executors_python(driver, {"PYSPARK_PYTHON": sys.executable})
    assert check.status is Status.OK
    assert found is not None
    assert found.versions == driver.versions


@pytest.mark.slow
def test_nothing_is_set_and_python3_will_do(tmp_path: Path, driver: Interpreter) -> None:
    program(tmp_path / "python3", f'exec {sys.executable} "$@"')
    check, found = stack.executors_python(driver, {"PATH": str(tmp_path)})
    assert check.status is Status.NOTE
    assert "export PYSPARK_PYTHON=" in said(check)
    assert found is not None


def test_nothing_is_set_and_there_is_no_python3(tmp_path: Path, driver: Interpreter) -> None:
    check, found = stack.executors_python(driver, {"PATH": str(tmp_path)})
    assert check.status is Status.FAILED
    assert f"export PYSPARK_PYTHON={sys.executable}" in said(check)
    assert found is None


@pytest.mark.slow
def test_the_executors_python_lacks_us(tmp_path: Path, driver: Interpreter) -> None:
    bare = program(tmp_path / "bare", f'exec {sys.executable} -S "$@"')
    check, found = stack.executors_python(driver, {"PYSPARK_PYTHON": str(bare)})
    assert check.status is Status.FAILED
    assert "cannot import executor_agent" in said(check)
    assert found is None


def test_the_executors_python_is_another_version(tmp_path: Path, driver: Interpreter) -> None:
    other = {"python": "3.9.2", "executable": "/usr/bin/python3"}
    fake = program(tmp_path / "python3.9", f"echo 'tflease-probe{json.dumps(other)}'")
    check, _ = stack.executors_python(driver, {"PYSPARK_PYTHON": str(fake)})
    assert check.status is Status.FAILED
    assert f"Python 3.9.2, but the driver's is {driver.python}" in said(check)


def test_the_probe_tells_which_tflease_there_is(driver: Interpreter) -> None:
    """What the next test compares."""
    assert driver.versions["tflease"] == VERSION


def test_the_executors_python_has_another_tflease(tmp_path: Path) -> None:
    other = {"python": "3.11.9", "executable": "/usr/bin/python3", "versions": {"tflease": "0.0.9"}}
    fake = program(tmp_path / "python3.11", f"echo 'tflease-probe{json.dumps(other)}'")
    check, _ = stack.executors_python(DRIVER, {"PYSPARK_PYTHON": str(fake)})
    assert "tflease 0.0.9, but the driver's is 0.1.0" in said(check)


def test_the_executors_python_is_no_python(tmp_path: Path, driver: Interpreter) -> None:
    for body in ("exit 3", "echo nonsense"):
        broken = program(tmp_path / "broken", body)
        check, _ = stack.executors_python(driver, {"PYSPARK_PYTHON": str(broken)})
        assert check.status is Status.FAILED
        assert "cannot run Python programs" in said(check)


def test_an_archives_relative_python_cannot_be_looked_at(driver: Interpreter) -> None:
    check, found = stack.executors_python(driver, {"PYSPARK_PYTHON": "environment/bin/python"})
    assert check.status is Status.NOTE
    assert "relative" in said(check)
    assert found is None
