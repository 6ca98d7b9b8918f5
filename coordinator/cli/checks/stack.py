"""The software: Java, pyspark, the executors' Python, TensorFlow, protobuf."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.check import why_outside
from coordinator.cli import probe
from coordinator.cli.checks import Check, failed, note, ok
from coordinator.cli.probe import Interpreter, ProbeFailed

OLDEST_JAVA = 17
JAVA_MODULE = "jdk.incubator.vector"

EXECUTOR_MODULES = ("executor_agent.spark_task", "executor_agent.agent", "pyarrow")
"""What a Spark task imports, and the agent that it starts."""

_JAVA_ADVICE = (
    "install Java 17 or newer, complete (Debian, Ubuntu: apt-get install openjdk-17-jre-headless), "
    "and set JAVA_HOME to it where it is not on PATH"
)


def java(environment: Mapping[str, str] = os.environ) -> Check:
    """The one that Spark would start: in JAVA_HOME, else on PATH."""
    home = environment.get("JAVA_HOME")
    if home:
        program: str | None = str(Path(home, "bin", "java"))
        where = f"JAVA_HOME={home}"
    else:
        program = shutil.which("java", path=environment.get("PATH"))
        where = f"{program}, from PATH"
    if program is None:
        return failed("Java", "neither JAVA_HOME nor a java on PATH", _JAVA_ADVICE)
    settings = _output([program, "-XshowSettings:properties", "-version"])
    found = re.search(r"java\.version = (\S+)", settings)
    specified = re.search(r"java\.specification\.version = ([\d.]+)", settings)
    if found is None or specified is None:
        return failed("Java", f"{where} does not run", _JAVA_ADVICE)
    if float(specified[1]) < OLDEST_JAVA:  # "1.8", once
        return failed("Java", f"{found[1]} ({where}) is too old for Spark", _JAVA_ADVICE)
    if not re.search(f"^{re.escape(JAVA_MODULE)}", _output([program, "--list-modules"]), re.M):
        return failed(
            "Java",
            f"{found[1]} ({where}) lacks the module {JAVA_MODULE}, which Spark asks for",
            _JAVA_ADVICE,
        )
    return ok("Java", f"{found[1]} ({where})")


def _output(command: list[str]) -> str:
    """Both streams: Java tells its settings on standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def pyspark(driver: Interpreter) -> Check:
    """In this interpreter, the driver's."""
    error = driver.errors.get("pyspark")
    if error is not None:
        return failed("pyspark", error, f"{_pip(driver)} 'tflease[spark]'")
    return _in_range("pyspark", driver, "tflease[spark]")


def libraries(driver: Interpreter) -> list[Check]:
    """What tflease itself stands on."""
    return [_in_range(name, driver, "tflease") for name in ("grpcio", "protobuf")]


def protobuf_implementation(driver: Interpreter) -> Check:
    """Pure Python is 14 to 180 times slower."""
    found = driver.protobuf_implementation
    if found in ("upb", "cpp"):
        return ok("protobuf speed", f"{found}, the fast implementation")
    if not found:
        return failed("protobuf speed", "protobuf cannot be imported", f"{_pip(driver)} tflease")
    return note(
        "protobuf speed",
        f"{found}, the slow implementation",
        "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or install protobuf from its binary wheel",
    )


def executors_python(
    driver: Interpreter, environment: Mapping[str, str] = os.environ
) -> tuple[Check, Interpreter | None]:
    """What executors start, as far as this machine can tell; and what that has, if it will do."""
    name = "executors' Python"
    configured = environment.get("PYSPARK_PYTHON", "")
    set_it = f"export PYSPARK_PYTHON={sys.executable}"
    if not configured:
        where = "PYSPARK_PYTHON is not set: executors run the python3 on their PATH"
    elif not os.path.isabs(configured) and "/" in configured:
        found = f"PYSPARK_PYTHON={configured} is relative to the executors' working directory"
        return note(name, f"{found}, and cannot be looked at from here"), None
    else:
        where = f"PYSPARK_PYTHON={configured}"
    program = shutil.which(configured or "python3", path=environment.get("PATH"))
    if program is None:
        return failed(name, f"{where}, which is not here", set_it), None
    try:
        found_there = probe.ask(program, *EXECUTOR_MODULES)
    except ProbeFailed as error:
        return failed(name, f"{where}: {error}", set_it), None
    lack = _why_not(found_there, driver)
    if lack:
        where = where if configured else f"{where}, here {program}"
        return failed(name, f"{where}: {lack}", set_it), None
    if not configured:
        return note(name, f"{where}, and here {program} will do", set_it), found_there
    return ok(name, f"{found_there.python} ({where})"), found_there


def _why_not(there: Interpreter, driver: Interpreter) -> str:
    if there.minor != driver.minor:
        return f"Python {there.python}, but the driver's is {driver.python}"
    if there.errors:
        module, error = next(iter(there.errors.items()))
        return f"cannot import {module.partition('.')[0]} ({error})"
    versions = [each.versions.get("tflease") for each in (there, driver)]
    if all(versions) and versions[0] != versions[1]:
        return f"tflease {versions[0]}, but the driver's is {versions[1]}"
    return ""


def tensorflow(interpreter: Interpreter) -> Check:
    """In the executors' interpreter, where it runs."""
    return _in_range("tensorflow", interpreter, "tflease[tensorflow]")


def _in_range(name: str, interpreter: Interpreter, requirement: str) -> Check:
    advice = f"{_pip(interpreter)} '{requirement}'"
    version = interpreter.versions.get(name)
    if version is None:
        return failed(name, f"not installed for {interpreter.executable}", advice)
    outside = why_outside(name, version)
    return failed(name, outside, advice) if outside else ok(name, version)


def _pip(interpreter: Interpreter) -> str:
    return f"{interpreter.executable} -m pip install"
