"""The import law, read from the syntax tree of every file. The tables below are the law."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("coordinator", "executor_agent")
GENERATED = "coordinator.v1"

# Names below are modules and stand for everything under them, too: "grpc" is also "grpc.aio".

# Rooms that import nothing but their own and what the standard library has to describe values:
# no clock, randomness, environment, logging, processes or sockets.
PURE_ROOMS = ("coordinator.core", "executor_agent.core")
VALUE_MODULES = (
    "__future__", "abc", "base64", "bisect", "collections", "copy", "dataclasses", "enum",
    "fractions", "functools", "graphlib", "hashlib", "heapq", "ipaddress", "itertools", "json",
    "math", "operator", "re", "string", "textwrap", "types", "typing",
)  # fmt: skip

# What one package may use of the other, and who may; "lazily" as below.
BETWEEN_PACKAGES = {
    # The executor is a client like any other.
    "executor_agent -> coordinator": {
        "executor_agent": (
            "coordinator.core.access",
            "coordinator.core.errors",
            "coordinator.core.file_progress",
            "coordinator.core.file_values",
            "coordinator.core.gpu",
            "coordinator.core.log_values",
            "coordinator.core.model",
            "coordinator.core.stall_timeouts",
            "coordinator.file_sender",
            "coordinator.member_client",
        ),
    },
    "coordinator -> executor_agent": {
        # Only to hand Spark the functions that its tasks run.
        "coordinator.spark": (
            "executor_agent.core.evaluation_files",
            "executor_agent.core.feed_values",
            "executor_agent.examination",
            "executor_agent.feed.control",
            "executor_agent.feed.feeder",
            "executor_agent.feed.inference_task",
            "executor_agent.feed.methods",
            "executor_agent.feed.saved_model",
            "executor_agent.feed.sending",
            "executor_agent.feed.wire",
            "executor_agent.spark_task",
        ),
        # A command that is run on an executor's machine, and does there what an agent does.
        "coordinator.cli.reap lazily": ("executor_agent.leftovers",),
    },
}

# Who may import what is heavy, or is one room's business. "lazily": inside a function only, so that
# importing the module stays cheap and works where the library is missing.
SPEAKS_PROTOBUF = (
    "coordinator.calls", "coordinator.channels",
    "coordinator.client", "coordinator.embedded", "coordinator.event_client",
    "coordinator.event_service", "coordinator.file_client", "coordinator.file_sender",
    "coordinator.file_service", "coordinator.file_wire", "coordinator.gpu_client",
    "coordinator.gpu_service", "coordinator.gpu_stream", "coordinator.gpu_wire",
    "coordinator.run_pictures",
    "coordinator.member_client", "coordinator.metrics_aspect", "coordinator.limiting",
    "coordinator.log_service", "coordinator.restart_wire",
    "coordinator.security", "coordinator.server", "coordinator.service", "coordinator.status",
    "coordinator.stream_errors", "coordinator.wire",
)  # fmt: skip
OWNERS = {
    "coordinator.v1": SPEAKS_PROTOBUF,
    "google": SPEAKS_PROTOBUF,
    "grpc": SPEAKS_PROTOBUF,
    "grpc_health": SPEAKS_PROTOBUF,
    "grpc_reflection": SPEAKS_PROTOBUF,
    "grpc_status": SPEAKS_PROTOBUF,
    "cryptography": (
        "coordinator.authority lazily",
        "coordinator.cli.checks.daemon lazily",
        "coordinator.tls lazily",
    ),
    "keras": ("executor_agent.bootstrap lazily", "executor_agent.context lazily"),
    "psutil": ("executor_agent.spark_chain",),
    "prometheus_client": ("coordinator.metrics", "coordinator.monitoring lazily"),
    "py4j": ("coordinator.spark",),
    "pynvml": ("executor_agent.nvml lazily",),
    "pyspark": (
        "coordinator.spark",
        "executor_agent.examination lazily",
        "executor_agent.feed.feeder lazily",
        "executor_agent.feed.inference_task lazily",
        "executor_agent.spark_task lazily",
    ),
    "tensorflow": (
        "executor_agent.bootstrap lazily",
        "executor_agent.context lazily",
        "executor_agent.evaluation lazily",
        "executor_agent.feed.dataset lazily",
        "executor_agent.feed.parameter_server lazily",
        "executor_agent.feed.saved_model lazily",
        "executor_agent.keras_progress lazily",
    ),
    "tf_keras": ("executor_agent.bootstrap lazily", "executor_agent.context lazily"),
}

# `import coordinator` and `import executor_agent` load none of these.
HEAVY = ("cryptography", "google.protobuf", "grpc", "keras", "numpy", "pandas",
         "prometheus_client", "psutil", "pyarrow", "pynvml", "pyspark", "tensorflow")  # fmt: skip

# A folder of .proto files that is also a package would shadow the one of PyPI's proto-plus.
NO_SUCH_FILE = ("proto/__init__.py",)


# --- the checker ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    lazily: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def within_any(module: str, rooms: tuple[str, ...]) -> bool:
    return any(within(module, room) for room in rooms)


def imports_of(importer: str, source: str, modules: frozenset[str]) -> Iterator[Import]:
    """Every import in `source`; `modules` tells `from package import module` from a name in it."""

    def visit(node: ast.AST, lazily: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for name in names(child):
                yield Import(importer, name, child.lineno, lazily)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, lazily or inside or is_for_types_only(child))

    def names(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                for alias in node.names:
                    full = f"{module}.{alias.name}"
                    yield full if full in modules else module
            case ast.ImportFrom():
                yield "(a relative import)"
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module

    return visit(ast.parse(source), lazily=False)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def violations(importer: str, source: str, modules: frozenset[str]) -> list[str]:
    found = ((each, why_not(each)) for each in imports_of(importer, source, modules))
    return [f"{each}: {reason}" for each, reason in found if reason]


def why_not(each: Import) -> str | None:
    """The rule that `each` breaks."""
    importer, imported = each.importer, each.imported
    if imported.startswith("("):
        return "imports are absolute, so that this test can read them"

    for room in PURE_ROOMS:
        if within(importer, room) and not within_any(imported, (room, *VALUE_MODULES)):
            return f"{room} imports value modules of the standard library and itself only"

    for direction, grants in BETWEEN_PACKAGES.items():
        package, other = direction.split(" -> ")
        if within(importer, package) and within(imported, other):
            granted = [
                name for grant, names in grants.items() if is_granted(each, grant) for name in names
            ]
            if not within_any(imported, tuple(granted)):
                return f"{importer} may use of {other}: {', '.join(granted) or 'nothing'}"

    for library, grants in OWNERS.items():
        if within(imported, library) and not any(is_granted(each, grant) for grant in grants):
            return f"{library} belongs to {', '.join(grants)}"
    return None


def is_granted(each: Import, grant: str) -> bool:
    room, _, lazily = grant.partition(" ")
    return within(each.importer, room) and (each.lazily or not lazily)


# --- the tree obeys -------------------------------------------------------------------------------


def tree() -> dict[str, Path]:
    """Our modules by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_import_obeys_the_law() -> None:
    modules = tree()
    broken = [
        violation
        for name, path in modules.items()
        if not within(name, GENERATED)  # importing protobuf is what it is for
        for violation in violations(name, path.read_text(), frozenset(modules))
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_no_file_shadows_a_library() -> None:
    assert not [name for name in NO_SUCH_FILE if (ROOT / name).exists()]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_the_package_loads_nothing_heavy(package: str) -> None:
    code = f"import {package}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert not [name for name in loaded if within_any(name, HEAVY)]


# --- the checker can fail -------------------------------------------------------------------------

MODULES = frozenset({
    "coordinator", "coordinator.client", "coordinator.core", "coordinator.core.errors",
    "coordinator.core.events", "coordinator.core.model", "coordinator.engine",
    "coordinator.member_client", "coordinator.spark",
    "coordinator.v1", "executor_agent", "executor_agent.agent", "executor_agent.core",
    "executor_agent.leftovers", "executor_agent.spark_task",
})  # fmt: skip


@pytest.mark.parametrize(
    "importer, source",
    [
        ("coordinator.core.run", "import time"),
        ("coordinator.core.run", "from os import environ"),
        ("coordinator.core.run", "def f():\n    import random"),
        ("coordinator.core.run", "from coordinator import client"),
        ("coordinator.core.run", "import executor_agent.core"),
        ("coordinator.core.run", "import jsonschema"),
        ("coordinator.core.run", "from . import model"),
        ("coordinator.core.run", "try:\n    import grpc\nexcept ImportError:\n    pass"),
        ("executor_agent.core.states", "from coordinator.core.model import MemberId"),
        ("executor_agent.core.states", "import psutil"),
        ("executor_agent.agent", "import coordinator"),
        ("executor_agent.agent", "from coordinator.core import events"),
        ("executor_agent.agent", "from coordinator.v1 import run_service_pb2"),
        ("executor_agent.agent", "import coordinator.engine"),
        ("executor_agent.agent", "import grpc.aio"),
        ("executor_agent.agent", "import psutil"),
        ("executor_agent.launcher", "from psutil import Process"),
        ("executor_agent.gpus", "def f():\n    import pynvml"),
        ("executor_agent.nvml", "import pynvml"),
        ("executor_agent.spark_task", "from pyspark import TaskContext"),
        ("executor_agent.agent", "def f():\n    import pyspark"),
        ("executor_agent.bootstrap", "import tensorflow as tf"),
        ("executor_agent.bootstrap", "class A:\n    import tensorflow"),
        ("executor_agent.agent", "def f():\n    import tensorflow"),
        ("coordinator.engine", "from executor_agent import spark_task"),
        ("coordinator.spark.launch", "import executor_agent.agent"),
        ("coordinator.engine", "import pyspark"),
        ("coordinator.engine", "importlib.import_module('pyspark.sql')"),
        ("coordinator.engine", "from google.protobuf import timestamp_pb2"),
        ("coordinator.engine", "from coordinator.v1 import model_pb2"),
        ("coordinator", "if TYPE_CHECKING:\n    import psutil"),
        ("coordinator.cli.reap", "from executor_agent import leftovers"),
        ("coordinator.cli.reap", "def f():\n    from executor_agent import agent"),
        ("coordinator.cli.stop", "def f():\n    from executor_agent import leftovers"),
    ],
)
def test_the_checker_sees(importer: str, source: str) -> None:
    assert violations(importer, source, MODULES)


@pytest.mark.parametrize(
    "importer, source",
    [
        ("coordinator.core.run", "from collections.abc import Mapping"),
        ("coordinator.core.run", "from coordinator.core import model, errors"),
        ("coordinator.core", "from coordinator.core.model import Role"),
        ("executor_agent.agent", "from coordinator.member_client import Start"),
        ("executor_agent.agent", "from coordinator.core import errors, model"),
        ("executor_agent.spark_chain", "import psutil, os, signal"),
        ("executor_agent.spark_task", "def f():\n    from pyspark import TaskContext"),
        ("executor_agent.bootstrap", "def f():\n    import tensorflow"),
        ("executor_agent.context", "if TYPE_CHECKING:\n    import tensorflow"),
        ("executor_agent.nvml", "def f():\n    import pynvml"),
        ("coordinator.spark.launch", "from executor_agent.spark_task import run"),
        ("coordinator.spark.launch", "from executor_agent import spark_task"),
        ("coordinator.spark.launch", "from pyspark.sql import SparkSession"),
        ("coordinator.wire", "from coordinator.v1 import model_pb2"),
        ("coordinator.cli.reap", "def f():\n    from executor_agent import leftovers"),
        ("coordinator.server", "import grpc.aio"),
        ("coordinator.engine", "import grpcsomething"),
    ],
)
def test_the_checker_lets_through(importer: str, source: str) -> None:
    assert not violations(importer, source, MODULES)
