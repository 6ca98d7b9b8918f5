"""What an interpreter has, asked of that interpreter.

Owns: one short program that is run with ``python -c``, in this interpreter's place and in that of
the executors. A process of its own, because importing pyspark or protobuf here would load them
into the command line, and says nothing of another interpreter.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

_TIMEOUT = 60.0  # seconds; a cold network file system may take its time over an import

# Any Python 3 must be able to run this, too old ones included: it is how they are recognized.
_PROGRAM = """
import importlib, json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable,
         "versions": {}, "errors": {}, "protobuf_implementation": ""}
try:
    from importlib import metadata
except ImportError:
    metadata = None
names = {"tflease": ["tflease"],
         "grpcio": ["grpcio"], "protobuf": ["protobuf"], "pyarrow": ["pyarrow"],
         "pyspark": ["pyspark", "pyspark-client", "pyspark-connect"],
         "tensorflow": ["tensorflow", "tensorflow-cpu", "tensorflow-cpu-aws", "tf-nightly",
                        "tf-nightly-cpu"]}
for name, distributions in names.items():
    for distribution in distributions:
        try:
            found["versions"].setdefault(name, metadata.version(distribution))
        except Exception:
            pass
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except BaseException as error:
        found["errors"][module] = "%s: %s" % (type(error).__name__, error)
try:
    from google.protobuf.internal import api_implementation
    found["protobuf_implementation"] = api_implementation.Type()
except Exception:
    pass
print("tflease-probe" + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What one interpreter has.

    ``versions``: by name, only of what is installed. ``errors``: of the modules that were to be
    imported and could not be. ``protobuf_implementation``: "upb", "cpp", "python", or empty.
    """

    python: str
    executable: str
    versions: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    protobuf_implementation: str = ""

    @property
    def minor(self) -> str:
        """ "3.11" of "3.11.7": what driver and executors must have in common."""
        return ".".join(self.python.split(".")[:2])


class ProbeFailed(RuntimeError):
    """An interpreter could not be asked; the message says why."""


def ask(executable: str, *modules: str) -> Interpreter:
    """Runs the probe, which tries to import these modules. Raises ProbeFailed."""
    try:
        done = subprocess.run(
            [executable, "-c", _PROGRAM, *modules],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd="/",  # not here: an executor does not find modules in our working directory
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeFailed(f"{executable} cannot be run: {error}") from None
    _, mark, answer = done.stdout.rpartition("tflease-probe")
    if not mark:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise ProbeFailed(f"{executable} cannot run Python programs: {last[0]}")
    return Interpreter(**json.loads(answer))


@functools.cache
def this_interpreter() -> Interpreter:
    """The one that runs this program."""
    return ask(sys.executable)
