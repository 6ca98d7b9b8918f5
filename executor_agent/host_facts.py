"""One host as ``tflease doctor --spark`` sees it, one function a subject. Nothing is changed, and
what may take long has a deadline."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from executor_agent import leftovers
from executor_agent.core.gpu_choice import Surroundings, choose
from executor_agent.gpu_answers import GpuAnswers
from executor_agent.gpu_claims import ClaimRefused, HostClaims
from executor_agent.member_directory import HOME_VARIABLE
from executor_agent.nvml import open_nvml
from executor_agent.nvml_error import NvmlError
from executor_agent.spark_chain import command_line, spark_chain
from executor_agent.spark_task import member_environment, without_gpus

_NVML_TIMEOUT = 15.0  # seconds; it may have to wake the driver, about two for each GPU
_MAX_NAMED = 20

_DISTRIBUTIONS = {
    "tflease": ("tflease",),
    "grpcio": ("grpcio",),
    "protobuf": ("protobuf",),
    "pyarrow": ("pyarrow",),
    "tensorflow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-cpu-aws",
        "tf-nightly",
        "tf-nightly-cpu",
    ),
}

_LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "address space": resource.RLIMIT_AS,
}

# Ends with the task that has started it, also when that is killed in the middle of an import.
_IMPORTS = """
import importlib, json, sys
from executor_agent.linux import die_with_parent
if not die_with_parent(int(sys.argv[1])):
    sys.exit(1)
for name in sys.argv[2:]:
    problem = ""
    try:
        importlib.import_module(name)
    except BaseException as error:
        problem = "%s: %s" % (type(error).__name__, error)
    print("tflease-import" + json.dumps([name, problem[:500]]), flush=True)
"""


class Imports:
    """A process that tries to import these modules, with the environment that a member gets and no
    GPU: importing TensorFlow here would stay in a worker that Spark uses again."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        environment = without_gpus(member_environment(os.environ, sys.path, 1))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IMPORTS, str(os.getpid()), *modules],
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_ENABLE_FORK_SUPPORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def result(self, timeout: float) -> dict[str, str]:
        """By module, why it cannot be imported; "" for those that can."""
        try:
            output, _ = self._process.communicate(timeout=max(0.1, timeout))
            how = _ending(self._process.returncode)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
            how = f"took longer than {timeout:.0f} s"
        found = dict.fromkeys(self._modules, "")
        told = [each.split("tflease-import", 1) for each in output.splitlines()]
        answers = dict(json.loads(each[1]) for each in told if len(each) == 2)
        for name in self._modules:
            if name not in answers:
                found[name] = how  # of this one; those after it were not tried
                break
            found[name] = answers[name]
        return found

    def close(self) -> None:
        """Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _ending(code: int) -> str:
    if code < 0:
        return f"the interpreter was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"the interpreter ended with exit code {code}"


def executor() -> tuple[str, int | None]:
    """The executor's id and its JVM's pid, as far as they can be told. ("driver" on `local[n]`.)"""
    jvm = spark_chain().get("executor")
    if jvm is None:
        return "", None
    for flag, value in pairwise(command_line(jvm.pid)):
        if flag == "--executor-id":
            return value, jvm.pid
    return "driver", jvm.pid


def versions() -> dict[str, str]:
    """By name, only of what is installed."""
    found: dict[str, str] = {}
    for name, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            with suppress(metadata.PackageNotFoundError):
                found.setdefault(name, metadata.version(distribution))
    return found


def java_of(pid: int | None) -> str:
    """The version of the Java that runs as this process; "" when it does not say. Starts none."""
    if pid is None:
        return ""
    with suppress(OSError):
        home = Path(os.readlink(f"/proc/{pid}/exe")).parent.parent
        found = re.search(r'^JAVA_VERSION="([^"]+)"', (home / "release").read_text(), re.M)
        return found[1] if found else ""
    return ""


def kernel_problem() -> str:
    """Why ends of processes are not seen at once; "" when they are."""
    if not hasattr(os, "pidfd_open"):
        return "this Python was built without pidfds"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return f"the kernel refuses pidfds ({error.strerror})"
    return ""


def limits() -> dict[str, int | None]:
    """Soft ones; None for unlimited."""
    found = {name: resource.getrlimit(number)[0] for name, number in _LIMITS.items()}
    return {name: None if at == resource.RLIM_INFINITY else at for name, at in found.items()}


def _home() -> Path:
    """As `member_directory.home`, which makes it."""
    configured = os.environ.get(HOME_VARIABLE)
    if configured:
        return Path(configured).absolute()
    return Path(tempfile.gettempdir(), f"tflease-{os.geteuid()}")


def members_directory() -> dict[str, Any]:
    """Whether members can have their files there, and how much space there is."""
    path = _home()
    there = path if path.exists() else next(each for each in path.parents if each.exists())
    found: dict[str, Any] = {
        "path": str(path),
        "problem": _why_unfit(path, there),
        "free_bytes": shutil.disk_usage(there).free,
    }
    system = os.statvfs(there)
    if system.f_files:  # some file systems have no fixed number of them
        found["free_files"] = system.f_favail
    return found


def _why_unfit(path: Path, there: Path) -> str:
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} is not writable for uid {os.geteuid()}"
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ""
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(status.st_mode) & 0o077:
        return f"{path} is not a directory of uid {os.geteuid()} with mode 0700"
    return ""


def leftovers_here() -> dict[str, Any]:
    """Members of which something is left though nobody looks after it (O14)."""
    directory = _home() / "claims"
    survey = leftovers.survey(directory)
    found = [*survey.leftovers, *leftovers.find_unclaimed(directory)]
    return {
        "found": [_in_words(each) for each in found[:_MAX_NAMED]],
        "count": len(found),
        "living": survey.living,
        "broken": list(map(str, survey.broken[:_MAX_NAMED])),
    }


def _in_words(leftover: leftovers.Leftover) -> str:
    pids = ", ".join(str(each.identity.pid) for each in leftover.processes[:_MAX_NAMED])
    who = f"{leftover.member or 'a member'} of run {leftover.run_id}"
    return f"{who}: {leftover.why}; {f'pid {pids}' if pids else 'only its claim is left'}"


def examine_gpus(assigned: list[str] | None) -> dict[str, Any]:
    """What NVML shows, and what of it a member could have here."""
    found: dict[str, Any] = {"has_driver": any(Path("/dev").glob("nvidia[0-9]*"))}
    answers = GpuAnswers(lambda: open_nvml(os.environ).devices())
    began = time.monotonic()
    try:
        devices = answers.get(_NVML_TIMEOUT)
    except NvmlError as error:
        return {**found, "devices": [], "problem": str(error)}
    finally:
        answers.close()
    surroundings = Surroundings(
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        os.environ.get("CUDA_DEVICE_ORDER"),
        os.environ.get("NVIDIA_VISIBLE_DEVICES"),
    )
    return {
        **found,
        "devices": [f"{each.uuid} ({each.name})" for each in devices],
        "uuids": [each.uuid for each in devices],
        "errors": [f"{each.uuid}: {each.error}" for each in devices if each.error],
        "problem": choose(devices, assigned, surroundings).problem if devices else "",
        "seconds": round(time.monotonic() - began, 3),
    }


def examine_gpu_claims(gpus: dict[str, Any]) -> dict[str, Any]:
    """The claim files of this host: who has a GPU, which files nobody can use, and which are of
    GPUs that are not here (any more)."""
    claims = HostClaims()
    found: dict[str, Any] = {
        "directory": str(claims.directory), "problem": "", "held": [], "unusable": [], "gone": [],
    }  # fmt: skip
    try:
        status = claims.directory.lstat()
    except FileNotFoundError:
        return found
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        return {**found, "problem": "is no directory, or a link"}
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return {**found, "problem": f"lets others remove files that are not theirs ({mode:04o})"}
    if not os.access(claims.directory, os.W_OK | os.X_OK):
        return {**found, "problem": f"is not writable for uid {os.geteuid()} ({mode:04o})"}
    for path in sorted(claims.directory.glob("*.claim")):
        _look_at_claim(claims, path, found)
        known = gpus.get("uuids")
        if known and path.stem not in [claims.path(uuid).stem for uuid in known]:
            found["gone"].append(path.stem)
    return found


def _look_at_claim(claims: HostClaims, path: Path, found: dict[str, Any]) -> None:
    try:
        if not path.is_file() or path.is_symlink() or not os.access(path, os.R_OK | os.W_OK):
            raise ValueError("cannot be read and written by this user")
        text = path.read_text(errors="replace")
        if text and not isinstance(json.loads(text.partition("\n")[0]), dict):
            raise ValueError("is none that tflease has written")
    except OSError as error:
        found["unusable"].append(f"{path.name}: {error.strerror}")
        return
    except ValueError as error:
        broken = isinstance(error, json.JSONDecodeError)
        text = "cannot be understood" if broken else str(error)
        found["unusable"].append(f"{path.name} {text}")
        return
    try:
        claims.check_free(path.stem)
    except ClaimRefused as refused:
        pids = ", ".join(map(str, refused.pids))
        found["held"].append(f"{path.stem}: {refused.holder}{f' (pid {pids})' if pids else ''}")
